//go:build man

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommands makes the manual of this program from what --help says, and that of
// others from the documents.
func (c *ctl) manCommands() []*cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use: "man DIR [PAGE.SECTION=FILE.md[+PROGRAM]]...", Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := sourceDate()
			if err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: source, Manual: "kmsbroker", Date: &date}
			if err := doc.GenManTree(root, header, filepath.Join(args[0], "man1")); err != nil {
				return err
			}
			for _, arg := range args[1:] {
				if err := writePage(args[0], arg, source, date); err != nil {
					return fmt.Errorf("%s: %w", arg, err)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&source, "source", "kmsbroker", "what the pages say they are of")
	return []*cobra.Command{cmd}
}

// sourceDate is what SOURCE_DATE_EPOCH says.
func sourceDate() (time.Time, error) {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	return time.Unix(seconds, 0).UTC(), err
}

var (
	heading = regexp.MustCompile(`(?m)^# .*\n`)
	section = regexp.MustCompile(`(?m)^## (.*)$`)
	// A link to another document means nothing in a manual.
	link = regexp.MustCompile(`\[([^\]]+)\]\([^)]+\)`)
)

// writePage makes a page of a document, whose first sentence says what it is about.
func writePage(dir, arg, source string, date time.Time) error {
	page, file, _ := strings.Cut(arg, "=")
	file, program, hasOptions := strings.Cut(file, "+")
	dot := strings.LastIndexByte(page, '.')
	name, number := page[:dot], page[dot+1:]
	markdown, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	markdown = heading.ReplaceAll(markdown, nil)
	markdown = link.ReplaceAll(markdown, []byte("$1"))
	markdown = section.ReplaceAllFunc(markdown, func(line []byte) []byte { return append([]byte("# "), bytes.ToUpper(line[len("## "):])...) })
	var text bytes.Buffer
	fmt.Fprintf(&text, "%% %q %q %q %q %q\n# NAME\n%s - part of kmsbroker\n\n# DESCRIPTION\n", name, number, date.Format("Jan 2006"), source, "kmsbroker", name)
	text.Write(markdown)
	if hasOptions {
		help, err := exec.Command(program, "--help").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s --help: %w", program, err)
		}
		fmt.Fprintf(&text, "\n# OPTIONS\n\n```\n%s```\n", help)
	}
	return os.WriteFile(filepath.Join(dir, "man"+number, page), md2man.Render(text.Bytes()), 0o644) //nolint:gosec // G306: it is for everybody
}
