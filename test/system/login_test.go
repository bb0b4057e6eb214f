package system

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// prompted is a stage whose backend waits for its PIN.
func prompted(t *testing.T) *stage.Stage {
	t.Helper()
	s := stage.New(t, stage.Options{NoPINFile: true})
	s.Write("kmsbrokerd.toml", strings.Replace(s.Read("kmsbrokerd.toml"),
		fmt.Sprintf("pin_file    = %q", s.Path("pin")), `pin = "prompt"`, 1), 0o644)
	return s
}

func login(s *stage.Stage, pin string) stage.Result {
	return s.CtlInput([]byte(pin+"\n"), s.Control(), "-o", "json", "backend", "login", "hsm")
}

// TestEnteredPIN: the PIN is typed once, is good for every process until the
// daemon stops, and is nowhere to be found.
func TestEnteredPIN(t *testing.T) {
	s := prompted(t)
	daemon := s.Start()
	if err := daemon.Wait("waits for its PIN"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []stage.Result{s.Ctl(s.Control(), "status"), s.Ctl(s.Control(), "backend", "list"), s.Ctl(s.Control(), "backend", "show", "hsm")} {
		s.Must(r, nil)
		if !strings.Contains(r.Stdout, "waiting-for-pin") {
			t.Errorf("%s:\n%s", r.Command, r.Stdout)
		}
	}
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 1, "waits for its PIN", "backend login hsm")
	s.Refused(s.Ctl(s.Control(), "backend", "check", "hsm"), 1, "waits for its PIN", "backend login hsm")
	s.Refused(login(s, ""), 2, "nothing was entered")
	s.Refused(s.CtlInput([]byte("x"), s.Control(), "backend", "login", "none"), 5, "none")

	var b stage.Backend
	s.Must(login(s, s.HSM.PIN), &b)
	if b.State != "ready" {
		t.Errorf("after the login: %+v", b)
	}
	s.Refused(login(s, s.HSM.PIN), 1, "has its PIN already")
	s.Import("app-1")
	if err := syscall.Kill(s.Backend().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.Import("app-2")
	var report evidence
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "check", "hsm"), &report)
	if report.Verdict != "passed" {
		t.Errorf("verdict %s", report.Verdict)
	}

	plugin := s.Backend().PID
	for where, content := range map[string]string{
		"daemon log": daemon.Log.String(), "audit trail": s.AuditTrail(), "registry": s.Read("state/keyring.db"),
		"daemon's arguments": processFile(t, daemon.PID(), "cmdline"), "plugin's arguments": processFile(t, plugin, "cmdline"),
		"daemon's environment": processFile(t, daemon.PID(), "environ"), "plugin's environment": processFile(t, plugin, "environ"),
	} {
		if strings.Contains(content, s.HSM.PIN) {
			t.Errorf("the PIN is in the %s", where)
		}
	}
	logins := func(outcome string) int {
		return strings.Count(s.AuditTrail(), fmt.Sprintf(`"action":"backend.login","outcome":%q`, outcome))
	}
	if logins("allowed") != 2 || logins("done") != 1 || logins("failed") != 1 {
		t.Errorf("the audit trail has %d logins allowed, %d done, %d failed", logins("allowed"), logins("done"), logins("failed"))
	}

	daemon.Stop()
	s.Start()
	if b := s.Backend(); b.State != "waiting-for-pin" {
		t.Errorf("the next daemon: %+v", b)
	}
}

// TestEnteredWrongPIN: no second PIN is offered before an administrator has
// allowed it, not even the right one.
func TestEnteredWrongPIN(t *testing.T) {
	s := prompted(t)
	daemon := s.Start()
	s.Refused(login(s, "not-the-pin"), 1, "CKR_PIN_INCORRECT", "retry-login")
	if b := s.Backend(); b.State != "blocked" {
		t.Errorf("backend: %+v", b)
	}
	s.Refused(login(s, s.HSM.PIN), 1, "takes no PIN while it is blocked", "CKR_PIN_INCORRECT", "retry-login hsm")
	s.Must(s.Ctl(s.Control(), "backend", "retry-login", "hsm"), nil)
	if b := s.Backend(); b.State != "waiting-for-pin" {
		t.Errorf("after retry-login: %+v", b)
	}
	s.Must(login(s, s.HSM.PIN), nil)
	s.Import("app-1")
	if audit := s.AuditTrail(); strings.Contains(daemon.Log.String()+audit, "not-the-pin") || !strings.Contains(audit, `"reason":"PIN_INCORRECT"`) {
		t.Errorf("audit trail:\n%s", audit)
	}
}

// TestOneTokenHasOneAttempt: two backends on one token, and a renamed one, are
// no further attempts.
func TestOneTokenHasOneAttempt(t *testing.T) {
	s := stage.New(t, stage.Options{PIN: "not-the-pin"})
	config := s.Read("kmsbrokerd.toml")
	section := config[strings.Index(config, "[backend.hsm]"):strings.Index(config, "[[grant]]")]
	s.Write("kmsbrokerd.toml", config+strings.Replace(section, "backend.hsm", "backend.twin", 1), 0o644)
	daemon := s.Start()
	for _, name := range []string{"hsm", "twin"} {
		if err := daemon.Wait(`not tried again" backend=` + name); err != nil {
			t.Fatal(err)
		}
	}
	var backends []stage.Backend
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "list"), &backends)
	// Which one came first is chance; the other has only heard of it.
	tried := slices.DeleteFunc(backends, func(b stage.Backend) bool { return strings.Contains(b.Error, "by backend") })
	if len(backends) != 2 || len(tried) != 1 || !strings.Contains(tried[0].Error, "CKR_PIN_INCORRECT") {
		t.Errorf("the PIN was tried by %+v", tried)
	}
	daemon.Stop()

	// By now the PIN is right, and nobody has said so.
	s.Write("pin", s.HSM.PIN, 0o600)
	s.Write("kmsbrokerd.toml", strings.Replace(config, "backend.hsm", "backend.renamed", 1), 0o644)
	daemon = s.Start()
	if err := daemon.Wait("backend blocked"); err != nil {
		t.Fatal(err)
	}
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "renamed"), 1, "CKR_PIN_INCORRECT", "by backend", s.HSM.Serial)
	s.Must(s.Ctl(s.Control(), "backend", "retry-login", "renamed"), nil)
	s.Must(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "renamed"), nil)
}

// evidence is the JSON of a report, as archives rely on it.
type evidence struct {
	Schema  int       `json:"schema"`
	Verdict string    `json:"verdict"`
	RunBy   []string  `json:"run_by"`
	Plugin  string    `json:"plugin"`
	SHA256  string    `json:"plugin_sha256"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Device  struct {
		Manufacturer, Model, Serial, Label, Firmware string
	} `json:"device"`
	Results []struct {
		ID     string `json:"id"`
		Status string `json:"status"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
	} `json:"results"`
}

// TestCheckIsEvidence: the report says what was checked, by whom and with what,
// and of each check that was not made why.
func TestCheckIsEvidence(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	before := time.Now()
	s.Must(s.Ctl(s.Control(), "backend", "check", "hsm", "--report", s.Path("evidence.json")), nil)
	var report evidence
	if err := json.Unmarshal([]byte(s.Read("evidence.json")), &report); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(stage.Binaries(t), "plugins", "softhsm")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(content); report.Plugin != path || report.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("plugin %s with SHA-256 %s, want %s with %x", report.Plugin, report.SHA256, path, sum)
	}
	if len(report.RunBy) != 2 || !strings.HasPrefix(report.RunBy[0], "kmsbrokerd ") || !strings.HasPrefix(report.RunBy[1], "kmsbrokerctl ") {
		t.Errorf("run by %q", report.RunBy)
	}
	if d := report.Device; d.Serial != s.HSM.Serial || d.Label != s.HSM.Label || d.Manufacturer == "" || d.Model == "" || d.Firmware == "" {
		t.Errorf("device %+v", d)
	}
	if report.Schema != 2 || report.Verdict != "passed" || report.Started.Before(before.Add(-time.Second)) || report.Ended.Before(report.Started) {
		t.Errorf("schema %d, verdict %s, from %v to %v", report.Schema, report.Verdict, report.Started, report.Ended)
	}
	var notRun []string
	for _, r := range report.Results {
		switch {
		case r.Status == "not run":
			notRun = append(notRun, r.ID)
			if r.Detail == "" {
				t.Errorf("%s was not run, and nobody says why", r.ID)
			}
		case r.ID == "W-01" && r.Status == "not supported" && !strings.HasPrefix(r.Code, "CKR_"):
			t.Errorf("%s: what the device said is missing: %+v", r.ID, r)
		case (r.ID == "E-04" || r.ID == "E-06") && r.Status != "passed":
			t.Errorf("%+v", r)
		}
	}
	if want := []string{"G-12", "W-12", "W-13", "A-01", "A-02", "A-03"}; !slices.Equal(notRun, want) {
		t.Errorf("not run: %v, want %v", notRun, want)
	}
}

// TestCheckFindsAnExposedPIN: an administrator who puts the PIN into the
// environment of the plugin learns that it can be seen there.
func TestCheckFindsAnExposedPIN(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Write("kmsbrokerd.toml", strings.Replace(s.Read("kmsbrokerd.toml"),
		"environment = { ", fmt.Sprintf("environment = { VENDOR_PIN = %q, ", s.HSM.PIN), 1), 0o644)
	s.Start()
	r := s.Ctl(s.Control(), "-o", "json", "backend", "check", "hsm")
	var report evidence
	if err := json.Unmarshal([]byte(r.Stdout), &report); r.Status != 1 || err != nil || report.Verdict != "failed" {
		t.Fatalf("status %d, %v, verdict %s\n%s", r.Status, err, report.Verdict, r.Stderr)
	}
	for _, result := range report.Results {
		if (result.ID == "E-06") != (result.Status == "failed") {
			t.Errorf("%+v", result)
		}
	}
	if strings.Contains(r.Stdout+r.Stderr, s.HSM.PIN) {
		t.Error("the report tells the PIN")
	}
}
