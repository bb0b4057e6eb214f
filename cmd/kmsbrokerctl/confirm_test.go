package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// TestConfirm: a person types the name, and nobody else can.
func TestConfirm(t *testing.T) {
	for _, test := range []struct {
		name, typed string
		ok          bool
	}{
		{"the name", "payments\n", true},
		{"another one", "payment\n", false},
		{"only yes", "yes\n", false},
		{"nothing", "\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			person, program := terminal(t)
			if _, err := person.WriteString(test.typed); err != nil {
				t.Fatal(err)
			}
			c := &ctl{stdin: program, stderr: program}
			if err := c.confirm(t.Context(), "key", "payments", "it is gone for ever", false); (err == nil) != test.ok {
				t.Errorf("typed %q: %v", test.typed, err)
			}
		})
	}
}

// TestConfirmNeedsATerminal on both sides: a name that comes through a pipe was not
// typed, and a question that nobody sees is none.
func TestConfirmNeedsATerminal(t *testing.T) {
	_, program := terminal(t)
	for name, c := range map[string]*ctl{
		"a pipe answers":      {stdin: strings.NewReader("payments\n"), stderr: program},
		"nobody is asked":     {stdin: program, stderr: io.Discard},
		"neither is a person": {stdin: strings.NewReader("payments\n"), stderr: io.Discard},
	} {
		err := c.confirm(t.Context(), "key", "payments", "it is gone for ever", false)
		if _, usage := errors.AsType[usageError](err); !usage || !strings.Contains(err.Error(), "--yes") {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.confirm(t.Context(), "key", "payments", "it is gone for ever", true); err != nil {
			t.Errorf("%s, with --yes: %v", name, err)
		}
	}
}

// TestConfirmIsInterrupted: Ctrl-C ends the question.
func TestConfirmIsInterrupted(t *testing.T) {
	person, program := terminal(t)
	c := &ctl{stdin: program, stderr: program}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.confirm(ctx, "key", "payments", "it is gone for ever", false) }()
	awaitText(t, person, "Type its name")
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v", err)
	}
	if _, err := person.WriteString("\n"); err != nil { // ends the read that was left behind
		t.Fatal(err)
	}
}

// awaitText reads what the program shows until it has shown text.
func awaitText(t *testing.T, person *os.File, text string) {
	t.Helper()
	var shown strings.Builder
	one := make([]byte, 1)
	for !strings.Contains(shown.String(), text) {
		n, err := person.Read(one)
		if err != nil {
			t.Fatalf("shown %q: %v", shown.String(), err)
		}
		shown.Write(one[:n])
	}
}
