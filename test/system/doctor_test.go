package system

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

type finding struct{ Check, Result, Message, Next string }

// examine runs the doctor with a configuration, and returns what it finds beyond what is
// in order.
func examine(t *testing.T, s *stage.Stage, config string, status int) (found []finding) {
	t.Helper()
	r := s.Ctl("", "-o", "json", "doctor", "--config", config)
	if r.Status != status {
		t.Errorf("status %d, want %d: %s%s", r.Status, status, r.Stdout, r.Stderr)
	}
	var all []finding
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		t.Fatalf("%v: %s%s", err, r.Stdout, r.Stderr)
	}
	for _, f := range all {
		if strings.Contains(f.Message, stage.AccessKeySecret) || strings.Contains(f.Message, s.HSM.PIN) {
			t.Errorf("a secret is shown: %+v", f)
		}
		if f.Result == "problem" && f.Next == "" {
			t.Errorf("nothing is said to do next: %+v", f)
		}
		if f.Result != "ok" {
			found = append(found, f)
		}
	}
	return found
}

// expect wants a finding with words in its message.
func expect(t *testing.T, found []finding, check, result, words string) {
	t.Helper()
	for _, f := range found {
		if strings.HasPrefix(f.Check, check) && f.Result == result && strings.Contains(f.Message, words) {
			return
		}
	}
	t.Errorf("no %s of %s with %q in %+v", result, check, words, found)
}

// TestDoctor breaks one thing after the other.
func TestDoctor(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	for _, f := range examine(t, s, s.Config(), 0) {
		if f.Result != "warning" || !strings.Contains(f.Message, "without TLS") && !strings.Contains(f.Message, "not Alibaba Cloud's") {
			t.Errorf("a stage in order: %+v", f)
		}
	}

	good := s.Read("kmsbrokerd.toml")
	variant := func(old, replacement string) string {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("the configuration lacks %q", old)
		}
		s.Write("variant.toml", strings.Replace(good, old, replacement, 1), 0o600)
		return s.Path("variant.toml")
	}
	expect(t, examine(t, s, s.Path("none.toml"), 1), "configuration", "problem", "no such file")
	expect(t, examine(t, s, variant("[backend.hsm]", "[backend.hsm]\nplugn = 'x'"), 1), "configuration", "problem", "unknown key backend.hsm.plugn")
	expect(t, examine(t, s, variant("[backend.hsm]", "[backend.hsm]\nsha256 = '"+strings.Repeat("ab", 32)+"'"), 1), "plugin of hsm", "problem", "not abab")
	expect(t, examine(t, s, variant(`"`+s.EndpointURL()+`"`, `"https://kms.nowhere.invalid"`), 1), "KMS at https://kms.nowhere.invalid", "problem", "nowhere.invalid")
	expect(t, examine(t, s, variant(s.Path("credentials.toml"), s.Path("pin")), 1), "access key", "problem", "pin")
	expect(t, examine(t, s, variant("[[grant]]", "[audit]\nreserve_mib = 1024\n\n[[grant]]"), 0), "backend hsm", "warning", "not Alibaba Cloud's")

	if err := os.Chmod(s.Path("pin"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, examine(t, s, s.Config(), 1), "PIN of hsm", "problem", "mode 0644")
	if err := os.Chmod(s.Path("pin"), 0o600); err != nil {
		t.Fatal(err)
	}

	s.Intercept(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		return true
	})
	expect(t, examine(t, s, s.Config(), 1), "clock", "problem", "1h0m")
	s.Intercept(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"RequestId":"7021b6ec-4be7-4d3c-8a68-000000000000","Code":"Forbidden.NoPermission","Message":"no"}`))
		return false
	})
	expect(t, examine(t, s, s.Config(), 1), "key app-1", "problem", "Forbidden.NoPermission")
	s.Intercept(nil)

	s.Must(s.Ctl(s.Control(), "key", "disable", "app-1"), nil)
	expect(t, examine(t, s, s.Config(), 0), "key app-1", "warning", "Disabled")
	daemon.Stop()
	found := examine(t, s, s.Config(), 1)
	expect(t, found, "daemon", "problem", "control.sock")
	expect(t, found, "application socket", "problem", "no such file")
	if r := s.Ctl("", "doctor", "--config", s.Config()); r.Status != 1 || !strings.Contains(r.Stdout, "next: ") || !strings.Contains(r.Stdout, "in order") {
		t.Errorf("for people: %+v", r)
	}
}
