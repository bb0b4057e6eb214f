// Package stage sets up what whole-system tests and benchmarks run on: the built
// daemon and CLI as real processes with real sockets, a real SoftHSM token, and
// the emulated KMS over real HTTP.
package stage

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// Who the broker is at the emulated KMS, and where.
const (
	AccessKeyID     = "LTAIsystemtest"
	AccessKeySecret = "system-test-secret-4711"
	Region          = "cn-hangzhou"
	OtherRegion     = "cn-shanghai"
)

// Stage is everything one test needs, in a directory of its own.
type Stage struct {
	t   testing.TB
	Dir string
	HSM *softhsmtest.Fixture
	KMS *emulator.Server

	endpoint *httptest.Server

	mu          sync.Mutex
	intercept   Intercept
	actions     []string
	connections int
}

// Intercept sees a KMS request before the emulator does; it returns false when
// it has answered itself.
type Intercept func(w http.ResponseWriter, r *http.Request, kms http.Handler) bool

// Options change a stage from its defaults.
type Options struct {
	Endpoint  string // instead of the stage's own emulator
	NoForeign bool   // do not set allow_foreign_endpoint
	PIN       string // instead of the token's
	NoPINFile bool
	Label     string            // of the token, instead of its own
	Settings  map[string]string // more plugin settings
	Luna      *hsmsim.Sim       // a simulated Luna, instead of the SoftHSM token
	Instances []string          // KMS instances that the emulator has
	Clock     func() time.Time  // of the emulator, instead of time.Now
	Quota     bool              // the emulator has the quotas of an account
}

// New makes a token, an emulator and a configuration in which the present user
// may do everything with the keys app-*. Start starts the daemon.
func New(t testing.TB, opts Options) *Stage {
	t.Helper()
	// Unix socket paths have 108 bytes; t.TempDir() would spend most of them.
	dir, err := os.MkdirTemp("", "kb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Stage{t: t, Dir: dir, HSM: softhsmtest.New(t)}
	s.KMS, err = emulator.New(emulator.Config{
		Regions: []string{Region, OtherRegion}, AccessKeyID: AccessKeyID, AccessKeySecret: AccessKeySecret, Control: true,
		Instances: opts.Instances, Clock: opts.Clock, Quota: opts.Quota,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.KMS.Close(); err != nil {
			t.Error(err)
		}
	})
	s.endpoint = httptest.NewUnstartedServer(http.HandlerFunc(s.serveKMS))
	s.endpoint.Config.ConnState = s.count
	s.endpoint.Start()
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

func (s *Stage) count(_ net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.connections++
	case http.StateClosed, http.StateHijacked:
		s.connections--
	default:
	}
}

// Intercept lets f see every KMS request from now on.
func (s *Stage) Intercept(f Intercept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Connections is how many connections to the KMS are open.
func (s *Stage) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// EndpointURL is where the KMS is.
func (s *Stage) EndpointURL() string { return s.endpoint.URL }

// CloseKMS makes the KMS unreachable.
func (s *Stage) CloseKMS() { s.endpoint.Close() }

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

// AllActions returns what KMS was asked for until now, in that order.
func (s *Stage) AllActions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.actions)
}

// Client speaks to the stage's KMS with the broker's own access key.
func (s *Stage) Client() *kmsapi.Client { return s.ClientIn(Region) }

// ClientIn is Client for one region.
func (s *Stage) ClientIn(region string) *kmsapi.Client {
	s.t.Helper()
	client, err := kmsapi.NewClient(kmsapi.ClientConfig{
		Region: region, Endpoint: s.endpoint.URL,
		Credentials: kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: AccessKeyID, AccessKeySecret: AccessKeySecret}),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	return client
}

// Path is the path of a file of the stage.
func (s *Stage) Path(name string) string { return filepath.Join(s.Dir, name) }

// Control is the daemon's control socket.
func (s *Stage) Control() string { return s.Path("run/admin/control.sock") }

// Application is the daemon's application socket.
func (s *Stage) Application() string { return s.Path("run/kms.sock") }

// Config is the daemon's configuration file.
func (s *Stage) Config() string { return s.Path("kmsbrokerd.toml") }

// Write writes a file of the stage.
func (s *Stage) Write(name, content string, mode os.FileMode) {
	s.t.Helper()
	if err := os.WriteFile(s.Path(name), []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
}

// Read reads a file of the stage.
func (s *Stage) Read(name string) string {
	s.t.Helper()
	content, err := os.ReadFile(s.Path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(content)
}

// AuditTrail returns the segments of the audit trail one after the other. What
// applications did last may not be there before the daemon is stopped.
func (s *Stage) AuditTrail() string {
	s.t.Helper()
	segments, err := filepath.Glob(s.Path("state/audit/audit-*.log"))
	if err != nil || len(segments) == 0 {
		s.t.Fatalf("no audit trail: %v", err)
	}
	var trail strings.Builder
	for _, segment := range segments {
		content, err := os.ReadFile(segment)
		if err != nil {
			s.t.Fatal(err)
		}
		trail.Write(content)
	}
	return trail.String()
}

func (s *Stage) configure(opts Options) {
	s.t.Helper()
	s.Write("credentials.toml", fmt.Sprintf("access_key_id = %q\naccess_key_secret = %q\n", AccessKeyID, AccessKeySecret), 0o600)
	plugin, pin, label, endpoint := "softhsm", s.HSM.PIN, s.HSM.Label, s.endpoint.URL
	environment := []string{s.HSM.Env()}
	if opts.Luna != nil {
		plugin, pin, label, environment = "luna", opts.Luna.PIN, opts.Luna.Label, slices.Clone(opts.Luna.Env)
	}
	if opts.PIN != "" {
		pin = opts.PIN
	}
	if opts.Label != "" {
		label = opts.Label
	}
	if opts.Endpoint != "" {
		endpoint = opts.Endpoint
	}
	if !opts.NoPINFile {
		s.Write("pin", pin+"\n", 0o600)
	}
	settings := []string{fmt.Sprintf("token_label = %q", label)}
	for name, value := range opts.Settings {
		settings = append(settings, fmt.Sprintf("%s = %q", name, value))
	}
	if opts.Luna != nil {
		settings = append(settings, fmt.Sprintf("library = %q", opts.Luna.Library))
	}
	for i, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		environment[i] = fmt.Sprintf("%s = %q", name, value)
	}
	s.Write("kmsbrokerd.toml", fmt.Sprintf(`
state_dir   = %q
runtime_dir = %q
plugin_dir  = %q

[kms]
region           = %q
endpoint         = %q
credentials_file = %q

[kms.regions.%s]
endpoint = %q

[backend.hsm]
plugin      = %q
pin_file    = %q
allow_foreign_endpoint = %t
settings    = { %s }
environment = { %s }

[[grant]]
keys       = ["app-*"]
operations = ["encrypt", "decrypt", "generate-data-key", "generate-data-key-without-plaintext"]
users      = [%d]
`, s.Path("state"), s.Path("run"), filepath.Join(Binaries(s.t), "plugins"), Region, endpoint,
		s.Path("credentials.toml"), OtherRegion, endpoint, plugin, s.Path("pin"), !opts.NoForeign, strings.Join(settings, ", "), strings.Join(environment, ", "), os.Getuid()), 0o644)
}

// Configure replaces a text in the daemon's configuration, which is read when it
// starts.
func (s *Stage) Configure(old, replacement string) {
	s.t.Helper()
	config := s.Read("kmsbrokerd.toml")
	if strings.Count(config, old) != 1 {
		s.t.Fatalf("the configuration does not have %q once:\n%s", old, config)
	}
	s.Write("kmsbrokerd.toml", strings.Replace(config, old, replacement, 1), 0o644)
}

// Identify lets the broker be somebody else than the root of the account, as the
// lines of [kms] say that come in place of credentials_file.
func (s *Stage) Identify(lines string) {
	s.t.Helper()
	s.Configure(fmt.Sprintf("credentials_file = %q\n", s.Path("credentials.toml")), lines+"\n")
}

// Binaries is the directory that `make build` filled.
func Binaries(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("KMSBROKER_BIN")
	if dir == "" {
		t.Fatal("KMSBROKER_BIN is not set: use `make test` or `make bench`")
	}
	return dir
}
