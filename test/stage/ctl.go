package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Result is how a command ended.
type Result struct {
	Command        string // its arguments
	Status         int
	Stdout, Stderr string
}

// Ctl runs kmsbrokerctl.
func (s *Stage) Ctl(socket string, args ...string) Result { return s.CtlInput(nil, socket, args...) }

// CtlInput runs kmsbrokerctl with something on its standard input.
func (s *Stage) CtlInput(input []byte, socket string, args ...string) Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(Binaries(s.t), "kmsbrokerctl"), append([]string{"--socket", socket}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.t.Fatal(err)
	}
	return Result{strings.Join(args, " "), cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// Must fails the test unless the command succeeded, and decodes its JSON.
func (s *Stage) Must(r Result, into any) {
	s.t.Helper()
	if r.Status != 0 {
		s.t.Fatalf("%s: status %d\n%s%s", r.Command, r.Status, r.Stdout, r.Stderr)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(r.Stdout), into); err != nil {
			s.t.Fatalf("%s: not JSON: %v\n%s", r.Command, err, r.Stdout)
		}
	}
}

// Refused fails the test unless the command ended with status and said all
// words on stderr and nothing on stdout.
func (s *Stage) Refused(r Result, status int, words ...string) {
	s.t.Helper()
	if r.Status != status || r.Stdout != "" {
		s.t.Errorf("%s: status %d, want %d; stdout %q, stderr:\n%s", r.Command, r.Status, status, r.Stdout, r.Stderr)
	}
	for _, word := range words {
		if !strings.Contains(r.Stderr, word) {
			s.t.Errorf("%s: stderr lacks %q:\n%s", r.Command, word, r.Stderr)
		}
	}
}

// Key is the JSON of a key, as scripts rely on it.
type Key struct {
	Name              string  `json:"name"`
	KeyID             string  `json:"key_id"`
	ARN               string  `json:"arn"`
	Region            string  `json:"region"`
	State             string  `json:"state"`
	Backend           string  `json:"backend"`
	HSMKeyID          string  `json:"hsm_key_id"`
	CheckValue        string  `json:"check_value"`
	WrappingAlgorithm string  `json:"wrapping_algorithm"`
	MaterialExpiresAt *string `json:"material_expires_at"`
	Alias             string  `json:"alias"`
	CreatedAt         string  `json:"created_at"`
	CMKs              []CMK   `json:"cmks"`
}

// CMK is the JSON of one CMK of a key.
type CMK struct {
	KeyID    string `json:"key_id"`
	Region   string `json:"region"`
	State    string `json:"state"`
	Current  bool   `json:"current"`
	HSMKeyID string `json:"hsm_key_id"`
}

// Backend is the JSON of a backend.
type Backend struct {
	State    string `json:"state"`
	Error    string `json:"error"`
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
}

// Import imports a key and returns it.
func (s *Stage) Import(name string, args ...string) Key {
	s.t.Helper()
	var key Key
	s.Must(s.Ctl(s.Control(), append([]string{"-o", "json", "key", "import", name, "--backend", "hsm"}, args...)...), &key)
	return key
}

// Continue continues the import of a key that was interrupted.
func (s *Stage) Continue(name string) Key {
	s.t.Helper()
	var key Key
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "import", name), &key)
	return key
}

// CMKs lists the CMKs of all regions, as KMS has them.
func (s *Stage) CMKs() []string {
	s.t.Helper()
	var ids []string
	for _, region := range []string{Region, OtherRegion} {
		list, err := s.ClientIn(region).ListKeys(s.t.Context(), kmsapi.Page{Number: 1, Size: kmsapi.MaxPageSize})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, key := range list.Keys {
			ids = append(ids, key.KeyID)
		}
	}
	return ids
}

// Backend returns how the backend is.
func (s *Stage) Backend() Backend {
	s.t.Helper()
	var b Backend
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "show", "hsm"), &b)
	return b
}

// Objects counts what the token keeps: secret keys as the backend lists them, and
// everything else. SoftHSM has a file for each object, which are counted past the
// backend.
func (s *Stage) Objects() (secret, other int) {
	s.t.Helper()
	var keys []any
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "keys", "hsm"), &keys)
	files, err := filepath.Glob(filepath.Join(filepath.Dir(s.HSM.ConfPath), "tokens", "*", "*.object"))
	if err != nil {
		s.t.Fatal(err)
	}
	all := 0
	for _, file := range files {
		if filepath.Base(file) != "token.object" {
			all++
		}
	}
	return len(keys), all - len(keys)
}

// Command is a kmsbrokerctl that runs.
type Command struct {
	stage          *Stage
	name           string
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

// StartCtl starts kmsbrokerctl and does not wait for it.
func (s *Stage) StartCtl(socket string, args ...string) *Command {
	s.t.Helper()
	c := &Command{stage: s, name: strings.Join(args, " ")}
	c.cmd = exec.Command(filepath.Join(Binaries(s.t), "kmsbrokerctl"), append([]string{"--socket", socket}, args...)...)
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	if err := c.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// Interrupt is Ctrl-C.
func (c *Command) Interrupt() {
	c.stage.t.Helper()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		c.stage.t.Fatal(err)
	}
}

// Wait returns how the command ended.
func (c *Command) Wait() Result {
	_ = c.cmd.Wait()
	return Result{c.name, c.cmd.ProcessState.ExitCode(), c.stdout.String(), c.stderr.String()}
}
