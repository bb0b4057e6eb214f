package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var (
	// A command stands in a code span, which may go over a line's end, or begins a line
	// of a block.
	inSpan  = regexp.MustCompile("`kmsbrokerctl\\s+([^`]+)`")
	inBlock = regexp.MustCompile(`(?m)^(?:    |sudo |.*\| )?kmsbrokerctl ([^\n#|>&;]+)`)
	placed  = regexp.MustCompile(`[…"'<>$(\[\]]`)
)

// TestDocumentedCommands: what the documents have people type is a command with flags
// that there are. The tests of the whole system run what they do.
func TestDocumentedCommands(t *testing.T) {
	found := 0
	for _, path := range documents(t) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(raw), "\\\n", " ")
		for _, pattern := range []*regexp.Regexp{inSpan, inBlock} {
			for _, match := range pattern.FindAllStringSubmatch(text, -1) {
				words := strings.Fields(match[1])
				for i, word := range words {
					if placed.MatchString(word) {
						words = words[:i]
						break
					}
				}
				if found++; !knows(words) {
					t.Errorf("%s: there is no command `kmsbrokerctl %s`", path, strings.Join(words, " "))
				}
			}
		}
	}
	if found < 80 {
		t.Errorf("only %d commands were found", found)
	}
}

func documents(t *testing.T) []string {
	t.Helper()
	paths := []string{"../../README.md", "../../SECURITY.md", "../../ARCHITECTURE.md"}
	for _, dir := range []string{"../../docs", "../../plugins", "../../examples"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if filepath.Ext(path) == ".md" {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// knows reports whether words name a command, with flags of its own.
func knows(words []string) bool {
	root := (&ctl{}).command()
	if len(words) == 0 {
		return true
	}
	if words[0] == "completion" || words[0] == "help" {
		return true
	}
	cmd, rest, err := root.Find(words)
	if err != nil {
		return false
	}
	if cmd == root && !strings.HasPrefix(words[0], "-") {
		return false
	}
	// A verb that does not exist is left over as an argument of its noun.
	if cmd.HasSubCommands() && cmd != root {
		for _, word := range rest {
			if !strings.HasPrefix(word, "-") {
				return false
			}
		}
	}
	return flagsOf(cmd, rest)
}

func flagsOf(cmd *cobra.Command, words []string) bool {
	cmd.InitDefaultHelpFlag()
	for _, word := range words {
		name, long := strings.CutPrefix(word, "--")
		name, _, _ = strings.Cut(strings.TrimRight(name, ",.:)"), "=")
		if long && cmd.Flag(name) == nil && cmd.InheritedFlags().Lookup(name) == nil && name != "version" {
			return false
		}
	}
	return true
}
