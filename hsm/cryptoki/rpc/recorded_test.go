package rpc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRecorded: requests as p11-kit-client.so of several releases sent them, one for each
// function, are understood. They are seeds of FuzzCall too; the name says who sent what.
func TestRecorded(t *testing.T) {
	files, err := filepath.Glob("testdata/fuzz/FuzzCall/p11-kit-*")
	if err != nil || len(files) < 150 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		version, body := readSeed(t, file)
		_, function, _ := strings.Cut(filepath.Base(file), "-C_")
		call, err := version.ParseCall(body)
		if err != nil || call.Function.String() != "C_"+strings.TrimSuffix(function, "2") {
			t.Errorf("%s: %+v, %v", file, call, err)
		}
	}
}

// readSeed reads a file in the form that Go's fuzzing keeps its seeds in.
func readSeed(t *testing.T, file string) (Version, []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	version, _, _, err := strconv.UnquoteChar(strings.TrimPrefix(lines[1], "byte('"), '\'')
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	body, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(lines[2], "[]byte("), ")"))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return Version(version), []byte(body)
}
