// Package examples runs the examples as they are in their folder.
package examples

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

const folder = "../../examples/applications"

// secret has what gets lost where text is mistaken for bytes.
var secret = []byte("a secret\x00of +/=&\xff\n")

// newStage starts a daemon that answers the present user, and the app web over TCP.
func newStage(t *testing.T) (s *stage.Stage, url string) {
	t.Helper()
	s = stage.New(t, stage.Options{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s.Configure("[backend.hsm]", fmt.Sprintf("[alibaba]\nlisten = %q\n\n[backend.hsm]", listener.Addr()))
	s.Write("kmsbrokerd.toml", s.Read("kmsbrokerd.toml")+"\n[[grant]]\nkeys = [\"app-1\"]\noperations = [\"encrypt\", \"decrypt\"]\napps = [\"web\"]\n"+
		fmt.Sprintf("\n[[grant]]\nkeys = [\"drop\"]\noperations = [\"encrypt\"]\nusers = [%d]\napps = [\"web\"]\n", os.Getuid()), 0o600)
	return s, "http://" + listener.Addr().String()
}

func TestExamples(t *testing.T) {
	s, url := newStage(t)
	s.Start()
	s.Import("app-1")
	s.Import("vault")
	s.Import("drop")
	s.Must(s.Ctl(s.Control(), "app", "issue", "web", "--out", s.Path("web-key.toml")), nil)
	node := stage.InstallNode(t, filepath.Join(folder, "node"))
	program := s.Path("example")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join(folder, "go"), "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	alibaba := s.Path("run/alibaba.sock")
	for name, command := range map[string]func(key string) []string{
		"go": func(key string) []string { return []string{program, key, s.Application()} },
		"python": func(key string) []string {
			return []string{"python3", filepath.Join(folder, "python/kms.py"), key, alibaba}
		},
		"shell": func(key string) []string { return []string{filepath.Join(folder, "shell/kms.sh"), key, alibaba} },
		"socket": func(key string) []string {
			return []string{"node", filepath.Join(node, "socket.mjs"), key, alibaba}
		},
		"tcp": func(key string) []string {
			return []string{"node", filepath.Join(node, "tcp.mjs"), key, url, s.Path("web-key.toml")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			if out, said, err := run(t, command("app-1")); err != nil || !bytes.Equal(out, secret) {
				t.Errorf("%v: %q\n%s", err, out, said)
			}
			for key, refused := range map[string]string{"vault": "grant", "drop": "may decrypt with"} {
				out, said, err := run(t, command(key))
				if err == nil || len(out) > 0 || !strings.HasPrefix(said, "error: ") || !strings.Contains(said, refused) {
					t.Errorf("%s: %v: %q\n%s", key, err, out, said)
				}
			}
		})
	}
}

func run(t *testing.T, command []string) (out []byte, said string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(secret), &stdout, &stderr
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	err = cmd.Run()
	return stdout.Bytes(), stderr.String(), err
}
