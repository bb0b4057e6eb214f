//go:build root

package machine

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// Process is a program that a test speaks with while it runs. It is ended with the
// test.
type Process struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// Start starts a program as a service of the machine.
func (m *Machine) Start(as As, args ...string) *Process {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	p := &Process{t: m.t, cmd: m.enter(ctx, append(as.command("--pipe", "--wait"), args...)...)}
	p.cmd.Stderr = &p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		m.t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	p.stdout = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		cancel()
		_ = p.cmd.Wait()
	})
	return p
}

// Say writes a line to the program.
func (p *Process) Say(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.stdin, line); err != nil {
		p.t.Fatal(err)
	}
}

// Line waits for a line from the program.
func (p *Process) Line() string {
	p.t.Helper()
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		_ = p.cmd.Wait()
		p.t.Fatalf("%v ended: %v\n%s", p.cmd.Args, err, &p.stderr)
	}
	return strings.TrimSpace(line)
}

// End closes the standard input of the program and waits for its end.
func (p *Process) End() {
	p.t.Helper()
	p.stdin.Close()
	_, _ = io.Copy(io.Discard, p.stdout)
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("%v: %v\n%s", p.cmd.Args, err, &p.stderr)
	}
}
