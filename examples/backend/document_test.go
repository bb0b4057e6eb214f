package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
)

func readDocument(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("../../docs/writing-a-backend.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// block is Go code in the document, under a line that links to its file.
var block = regexp.MustCompile("(?s)([^\n]*)\n+```go\n(.*?)```")

var linked = regexp.MustCompile(`\]\(\.\./examples/backend/(\w+\.go)\)`)

// What the document prints is what is compiled and tested here.
func TestDocumentShowsTheFiles(t *testing.T) {
	var shown []string
	for _, found := range block.FindAllStringSubmatch(readDocument(t), -1) {
		name := linked.FindStringSubmatch(found[1])
		if name == nil {
			t.Errorf("the code under %q is not linked to a file", found[1])
			continue
		}
		want, err := os.ReadFile(filepath.Base(name[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		if found[2] != string(want) {
			t.Errorf("the document prints another %s", name[1])
		}
		shown = append(shown, name[1])
	}
	if want := []string{"main.go", "token.go", "wrap.go", "conformance_test.go"}; !slices.Equal(shown, want) {
		t.Errorf("the document prints %v, want %v", shown, want)
	}
}

func TestDocumentListsTheChecks(t *testing.T) {
	var table strings.Builder
	for _, c := range conformance.Checks() {
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", c.ID, c.Title, c.Proves, c.Basis)
	}
	document := readDocument(t)
	for line := range strings.Lines(table.String()) {
		if !strings.Contains(document, line) {
			t.Errorf("the document misses:\n%s", line)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^\| [A-Z]-[0-9]{2} \|`).FindAllString(document, -1)); n != len(conformance.Checks()) {
		t.Errorf("the document lists %d checks, there are %d", n, len(conformance.Checks()))
	}
}

func TestDocumentListsTheReasons(t *testing.T) {
	document := readDocument(t)
	for _, reason := range hsm.Reasons() {
		if !strings.Contains(document, fmt.Sprintf("| `%s` |", string(reason))) {
			t.Errorf("the document misses %s", reason)
		}
	}
}
