package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/kmsbroker/kmsbroker/internal/secretfile"
)

// Secrets come from a file, a terminal or standard input, and never from an
// argument or the environment, which others could see.

// newSecret reads a secret that is made up here, from a file or twice from the
// terminal.
func (c *ctl) newSecret(ctx context.Context, what, path string) ([]byte, error) {
	if path != "" {
		content, err := secretfile.Read(path)
		return bytes.TrimRight(content, "\r\n"), err
	}
	terminal, ok := c.terminal()
	if !ok {
		return nil, usagef("%s: there is no terminal to ask on; give a file", what)
	}
	first, err := c.prompt(ctx, terminal, what)
	if err != nil {
		return nil, err
	}
	second, err := c.prompt(ctx, terminal, "once more")
	defer clear(second)
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("the two differ, nothing was done")
	}
	return first, err
}

// knownSecret reads a secret that exists already: from the terminal, or a line
// of standard input when that is none.
func (c *ctl) knownSecret(ctx context.Context, what string) ([]byte, error) {
	read := func() ([]byte, error) { return readLine(c.stdin) }
	if terminal, ok := c.terminal(); ok {
		read = func() ([]byte, error) { return c.prompt(ctx, terminal, what) }
	}
	secret, err := read()
	if err == nil && len(secret) == 0 {
		err = usagef("%s: nothing was entered", what)
	}
	return secret, err
}

func (c *ctl) terminal() (terminal *os.File, ok bool) {
	terminal, ok = c.stdin.(*os.File)
	return terminal, ok && term.IsTerminal(int(terminal.Fd()))
}

// prompt reads a line from the terminal without an echo. When ctx ends, it gives
// the terminal back as it was.
func (c *ctl) prompt(ctx context.Context, terminal *os.File, what string) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	silent := *before
	silent.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nil, err
	}
	fmt.Fprintf(c.stderr, "%s: ", what)
	defer fmt.Fprintln(c.stderr)
	secret, err := lineUntil(ctx, terminal)
	return secret, errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, before))
}

// lineUntil reads a line. When ctx ends first it leaves the read behind, which only
// the end of the program can interrupt.
func lineUntil(ctx context.Context, terminal *os.File) ([]byte, error) {
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := readLine(terminal)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		fmt.Fprintln(terminal)
		return nil, errors.New("interrupted, nothing was done")
	}
}

// longestSecret bounds what is read, in bytes.
const longestSecret = 4096

// readLine reads up to the end of the first line, byte by byte, so that nothing
// secret stays in a buffer.
func readLine(r io.Reader) ([]byte, error) {
	line, one := make([]byte, 0, longestSecret), make([]byte, 1)
	for len(line) < longestSecret {
		n, err := r.Read(one)
		switch {
		case n == 1 && one[0] == '\n', errors.Is(err, io.EOF) && n == 0:
			return bytes.TrimSuffix(line, []byte("\r")), nil
		case n == 1:
			line = append(line, one[0])
		case err != nil:
			clear(line)
			return nil, err
		}
	}
	clear(line)
	return nil, usagef("the line on standard input is longer than %d bytes", longestSecret-1)
}
