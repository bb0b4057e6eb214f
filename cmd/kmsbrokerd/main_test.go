package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata run this test binary as kmsbrokerd.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kmsbrokerd": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}
