//go:build root

package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const runTimeout = time.Minute

// As says who runs a program. The zero value is root, in a unit whose name systemd
// makes up.
type As struct {
	User string // with the groups that the machine gives it
	// Unit is the system unit, such as payments.service, which is made for the
	// program and ends with it.
	Unit       string
	Properties []string // of the unit, NAME=VALUE
	Env        []string // NAME=VALUE
	Stdin      []byte
}

// Result is how a program ended.
type Result struct {
	Command        string
	Status         int
	Stdout, Stderr string
}

// String shows all of it.
func (r Result) String() string {
	return fmt.Sprintf("%s: status %d\n%s%s", r.Command, r.Status, r.Stdout, r.Stderr)
}

// Run runs a program as a service of the machine and waits for its end.
func (m *Machine) Run(as As, args ...string) Result {
	m.t.Helper()
	return m.Exec(as.Stdin, append(as.command("--pipe", "--wait"), args...)...)
}

// command is the beginning of what has systemd start a program.
func (as As) command(options ...string) []string {
	command := append([]string{"systemd-run", "--quiet", "--collect"}, options...)
	if as.User != "" {
		command = append(command, "--uid="+as.User)
	}
	if as.Unit != "" {
		command = append(command, "--unit="+as.Unit)
	}
	for _, property := range as.Properties {
		command = append(command, "--property="+property)
	}
	for _, entry := range as.Env {
		command = append(command, "--setenv="+entry)
	}
	return append(command, "--")
}

// Exec runs a program as root beside all units, as only the host can. It is for
// preparing the machine, not for calling what is tested.
func (m *Machine) Exec(stdin []byte, args ...string) Result {
	m.t.Helper()
	r, err := m.exec(stdin, args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func (m *Machine) exec(stdin []byte, args ...string) (Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := m.enter(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	command := strings.Join(args, " ")
	if ctx.Err() != nil {
		return Result{}, fmt.Errorf("%s did not end within %v:\n%s%s", command, runTimeout, &stdout, &stderr)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return Result{}, err
	}
	return Result{command, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}, nil
}

// enter is a command that runs in all of the machine's namespaces.
func (m *Machine) enter(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(m.leader), "--all", "--"}, args...)...)
	cmd.Env = []string{"PATH=" + searchPath}
	// The program that nsenter started may hold the pipes after nsenter was killed.
	cmd.WaitDelay = 100 * time.Millisecond
	return cmd
}

// Must fails the test unless the program succeeded, and returns its output.
func (m *Machine) Must(r Result) string {
	m.t.Helper()
	if r.Status != 0 {
		m.t.Fatal(r)
	}
	return r.Stdout
}

// MustJSON is Must for a program that prints JSON.
func (m *Machine) MustJSON(r Result, into any) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.Must(r)), into); err != nil {
		m.t.Fatalf("%s: not JSON: %v\n%s", r.Command, err, r.Stdout)
	}
}

// Refused fails the test unless the program ended with status, said all words on
// standard error and nothing on standard output.
func (m *Machine) Refused(r Result, status int, words ...string) {
	m.t.Helper()
	if r.Status != status || r.Stdout != "" {
		m.t.Errorf("want status %d and no output of %v", status, r)
	}
	for _, word := range words {
		if !strings.Contains(r.Stderr, word) {
			m.t.Errorf("%q is not in the errors of %v", word, r)
		}
	}
}

// Install writes a file and the directories above it. The owner is USER:GROUP.
func (m *Machine) Install(path, owner string, mode uint32, content []byte) {
	m.t.Helper()
	user, group, _ := strings.Cut(owner, ":")
	m.Must(m.Exec(content, "install", "-D", "-o", user, "-g", group, "-m", fmt.Sprintf("%04o", mode), "/dev/stdin", path))
}
