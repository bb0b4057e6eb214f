package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/broker/pin"
)

func TestReadLine(t *testing.T) {
	for _, tt := range []struct {
		name, input, want string
		usage             bool
	}{
		{"a line", "1234\n", "1234", false},
		{"without its end", "1234", "1234", false},
		{"a DOS line", "1234\r\n", "1234", false},
		{"the first of two", "1234\n5678\n", "1234", false},
		{"blanks are part of it", " 12 34 \n", " 12 34 ", false},
		{"nothing", "", "", true},
		{"an empty line", "\n1234\n", "", true},
		{"endless", strings.Repeat("x", longestSecret), "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &ctl{stdin: iotest.DataErrReader(strings.NewReader(tt.input)), stderr: io.Discard}
			got, err := c.knownSecret(t.Context(), "PIN")
			if _, usage := errors.AsType[usageError](err); usage != tt.usage || !tt.usage && (err != nil || string(got) != tt.want) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// terminal makes a pseudo terminal and returns both of its ends.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// asked is told when the question was put, which is when the person types.
type asked struct {
	bytes.Buffer
	question chan struct{}
}

func (a *asked) Write(p []byte) (int, error) {
	select {
	case a.question <- struct{}{}:
	default:
	}
	return a.Buffer.Write(p)
}

func TestPromptOnATerminal(t *testing.T) {
	person, program := terminal(t)
	c := &ctl{stdin: program, stderr: io.Discard}
	if _, err := person.WriteString("geheim-4711\n"); err != nil {
		t.Fatal(err)
	}
	entered, err := c.knownSecret(t.Context(), "PIN")
	if err != nil || string(entered) != "geheim-4711" {
		t.Errorf("got %q, %v", entered, err)
	}
	if !echoes(t, program) {
		t.Error("the terminal has lost its echo")
	}
}

// TestPromptIsInterrupted: Ctrl-C gives the terminal back with its echo.
func TestPromptIsInterrupted(t *testing.T) {
	person, program := terminal(t)
	stderr := &asked{question: make(chan struct{}, 1)}
	c := &ctl{stdin: program, stderr: stderr}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.knownSecret(ctx, "PIN of backend hsm")
		done <- err
	}()
	<-stderr.question
	if echoes(t, program) {
		t.Error("what is typed can be read")
	}
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v", err)
	}
	if !echoes(t, program) {
		t.Error("the terminal has lost its echo")
	}
	if !strings.Contains(stderr.String(), "PIN of backend hsm: ") {
		t.Errorf("asked %q", stderr.String())
	}
	// Let the read that was left behind end.
	if _, err := person.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
}

// TestHashPINOnATerminal asks twice, and shows the PIN nowhere.
func TestHashPINOnATerminal(t *testing.T) {
	for _, tt := range []struct{ typed, want string }{{"geheim\ngeheim\n", ""}, {"geheim\ngehiem\n", "the two differ"}, {"\n\n", "1 to 256 bytes"}} {
		person, program := terminal(t)
		var stdout, stderr bytes.Buffer
		if _, err := person.WriteString(tt.typed); err != nil {
			t.Fatal(err)
		}
		status := run([]string{"policy", "hash-pin"}, program, &stdout, &stderr)
		if (status == 0) != (tt.want == "") || !strings.Contains(stderr.String(), tt.want) || strings.HasPrefix(stdout.String(), `pin = "pbkdf2-`) != (tt.want == "") {
			t.Errorf("%q: status %d, %s%s", tt.typed, status, stdout.String(), stderr.String())
		}
		if strings.Contains(stdout.String()+stderr.String(), "geheim") || !echoes(t, program) {
			t.Errorf("%q: the PIN is shown, or the echo lost: %s%s", tt.typed, stdout.String(), stderr.String())
		}
		line, quoted := strings.TrimSpace(stdout.String()), `pin = "`
		if tt.want == "" && pin.CheckHash(strings.TrimSuffix(strings.TrimPrefix(line, quoted), `"`)) != nil {
			t.Errorf("it is no hash: %s", line)
		}
	}
}
