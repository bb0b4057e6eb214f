// Package system tests the built daemon and CLI from outside, the way an
// administrator and an application meet them: real processes, real sockets, a
// real SoftHSM token, and the emulated KMS over real HTTP.
package system

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

const (
	accessKeyID     = "LTAIsystemtest"
	accessKeySecret = "system-test-secret-4711"
	region          = "cn-hangzhou"
)

// Stage is everything one test needs, in a directory of its own.
type Stage struct {
	t   *testing.T
	Dir string
	HSM *softhsmtest.Fixture
	KMS *emulator.Server

	endpoint *httptest.Server

	mu        sync.Mutex
	intercept intercept
	actions   []string
}

// intercept sees a KMS request before the emulator does; it returns false when
// it has answered itself.
type intercept func(w http.ResponseWriter, r *http.Request, kms http.Handler) bool

// Options change a stage from its defaults.
type Options struct {
	Endpoint  string // instead of the stage's own emulator
	NoForeign bool   // do not set allow_foreign_endpoint
	PIN       string // instead of the token's
	NoPINFile bool
	Label     string            // of the token, instead of its own
	Settings  map[string]string // more plugin settings
	Grants    string            // instead of: this user may do everything with app-*
}

// NewStage makes a token, an emulator and a configuration. Start starts the
// daemon.
func NewStage(t *testing.T, opts Options) *Stage {
	t.Helper()
	// Unix socket paths have 108 bytes; t.TempDir() would spend most of them.
	dir, err := os.MkdirTemp("", "kb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Stage{t: t, Dir: dir, HSM: softhsmtest.New(t)}
	s.KMS, err = emulator.New(emulator.Config{
		Regions: []string{region}, AccessKeyID: accessKeyID, AccessKeySecret: accessKeySecret,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.KMS.Close() })
	s.endpoint = httptest.NewServer(http.HandlerFunc(s.serveKMS))
	t.Cleanup(s.endpoint.Close)
	s.configure(opts)
	return s
}

func (s *Stage) serveKMS(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.actions = append(s.actions, r.Header.Get("X-Acs-Action"))
	intercept := s.intercept
	s.mu.Unlock()
	if intercept == nil || intercept(w, r, s.KMS) {
		s.KMS.ServeHTTP(w, r)
	}
}

// Intercept lets f see every KMS request from now on.
func (s *Stage) Intercept(f intercept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Actions returns how often KMS was asked for an action.
func (s *Stage) Actions(action string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.actions {
		if a == action {
			n++
		}
	}
	return n
}

func (s *Stage) path(name string) string { return filepath.Join(s.Dir, name) }

// Control and Application are the daemon's sockets.
func (s *Stage) Control() string     { return s.path("run/admin/control.sock") }
func (s *Stage) Application() string { return s.path("run/kms.sock") }

func (s *Stage) write(name, content string, mode os.FileMode) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Stage) configure(opts Options) {
	s.t.Helper()
	s.write("credentials.toml", fmt.Sprintf("access_key_id = %q\naccess_key_secret = %q\n", accessKeyID, accessKeySecret), 0o600)
	pin, label, endpoint, grants := s.HSM.PIN, s.HSM.Label, s.endpoint.URL, opts.Grants
	if opts.PIN != "" {
		pin = opts.PIN
	}
	if opts.Label != "" {
		label = opts.Label
	}
	if opts.Endpoint != "" {
		endpoint = opts.Endpoint
	}
	if grants == "" {
		grants = fmt.Sprintf(`
[[grant]]
keys       = ["app-*"]
operations = ["encrypt", "decrypt", "generate-data-key", "generate-data-key-without-plaintext"]
users      = [%d]
`, os.Getuid())
	}
	if !opts.NoPINFile {
		s.write("pin", pin+"\n", 0o600)
	}
	settings := []string{fmt.Sprintf("token_label = %q", label)}
	for name, value := range opts.Settings {
		settings = append(settings, fmt.Sprintf("%s = %q", name, value))
	}
	s.write("kmsbrokerd.toml", fmt.Sprintf(`
state_dir   = %q
runtime_dir = %q
plugin_dir  = %q

[kms]
region           = %q
endpoint         = %q
credentials_file = %q

[backend.hsm]
plugin      = "softhsm"
pin_file    = %q
allow_foreign_endpoint = %t
settings    = { %s }
environment = { SOFTHSM2_CONF = %q }
%s`, s.path("state"), s.path("run"), filepath.Join(binaries(s.t), "plugins"), region, endpoint,
		s.path("credentials.toml"), s.path("pin"), !opts.NoForeign, strings.Join(settings, ", "), s.HSM.ConfPath, grants), 0o644)
}

// binaries is the directory that `make build` filled.
func binaries(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KMSBROKER_BIN")
	if dir == "" {
		t.Fatal("KMSBROKER_BIN is not set: run these tests with `make test`")
	}
	return dir
}

// Daemon is a running kmsbrokerd.
type Daemon struct {
	cmd  *exec.Cmd
	log  *buffer
	done chan struct{}
}

// Start starts the daemon and waits until it says that it is ready.
func (s *Stage) Start() *Daemon {
	s.t.Helper()
	d := &Daemon{
		cmd:  exec.Command(filepath.Join(binaries(s.t), "kmsbrokerd"), "--config", s.path("kmsbrokerd.toml")),
		log:  &buffer{changed: make(chan struct{})},
		done: make(chan struct{}),
	}
	d.cmd.Stderr = d.log
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if err := d.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { defer close(d.done); _ = d.cmd.Wait() }()
	s.t.Cleanup(func() {
		d.Stop()
		if s.t.Failed() {
			s.t.Logf("kmsbrokerd:\n%s", d.log.String())
		}
	})
	if err := d.log.wait(s.t.Context(), "kmsbrokerd ready", d.done); err != nil {
		s.t.Fatalf("kmsbrokerd did not get ready: %v\n%s", err, d.log.String())
	}
	return d
}

// Stop ends the daemon the ordinary way and waits for it.
func (d *Daemon) Stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done
}

// Kill ends the daemon at once and waits for it.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
}

// Result is how a command ended.
type Result struct {
	Command        string // its arguments
	Status         int
	Stdout, Stderr string
}

// Ctl runs kmsbrokerctl.
func (s *Stage) Ctl(socket string, args ...string) Result { return s.ctl(nil, socket, args...) }

// CtlInput runs kmsbrokerctl with something on its standard input.
func (s *Stage) CtlInput(input []byte, socket string, args ...string) Result {
	return s.ctl(input, socket, args...)
}

func (s *Stage) ctl(input []byte, socket string, args ...string) Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries(s.t), "kmsbrokerctl"), append([]string{"--socket", socket}, args...)...)
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
			s.t.Fatalf("not JSON: %v\n%s", err, r.Stdout)
		}
	}
}

// Refused fails the test unless what was tried ended with status and said all
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

// Key is the JSON of a key.
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
}

// BackendJSON is the JSON of a backend.
type BackendJSON struct {
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

// Backend returns how the backend is.
func (s *Stage) Backend() BackendJSON {
	s.t.Helper()
	var b BackendJSON
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "show", "hsm"), &b)
	return b
}

// Client speaks to the stage's KMS with the broker's own access key.
func (s *Stage) Client() *kmsapi.Client {
	s.t.Helper()
	client, err := kmsapi.NewClient(kmsapi.ClientConfig{
		Region: region, Endpoint: s.endpoint.URL,
		Credentials: kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: accessKeyID, AccessKeySecret: accessKeySecret}),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	return client
}

// buffer collects output and lets others wait for a text in it.
type buffer struct {
	mu      sync.Mutex
	data    bytes.Buffer
	changed chan struct{}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// wait returns when text was written, an error when the writer ended first.
func (b *buffer) wait(ctx context.Context, text string, done <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		b.mu.Lock()
		found, changed := strings.Contains(b.data.String(), text), b.changed
		b.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-changed:
		case <-done:
			return errors.New("it ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
