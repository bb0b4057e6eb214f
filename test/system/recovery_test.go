package system

import (
	"net/http"
	"syscall"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestKilledPlugin: a crash in the vendor library costs the calls in flight and
// nothing else.
func TestKilledPlugin(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	before := s.Backend()
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil)
	s.Import("app-2")
	if after := s.Backend(); after.PID == before.PID || after.State != "ready" || after.Restarts != 1 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// TestPINFileRepaired: what is wrong with a file is no refused login.
func TestPINFileRepaired(t *testing.T) {
	s := stage.New(t, stage.Options{NoPINFile: true})
	daemon := s.Start()
	if err := daemon.Wait("does not exist"); err != nil {
		t.Fatal(err)
	}
	s.Write("pin", s.HSM.PIN, 0o600)
	if err := daemon.Wait("backend ready"); err != nil {
		t.Fatal(err)
	}
	s.Import("app-1")
}

// TestAbandon frees a name whose import cannot end.
func TestAbandon(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Intercept(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Header.Get("X-Acs-Action") != "GetParametersForImport" {
			return true
		}
		refuse(w, http.StatusForbidden, "Forbidden.NoPermission")
		return false
	})
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm", "--alias", "alias/a"), 1,
		"import step parameters", "key import app-1`")
	s.Refused(s.Ctl(s.Control(), "key", "abandon", "app-1"), 2, "--yes")
	var left struct {
		KeyID    string `json:"key_id"`
		HSMKeyID string `json:"hsm_key_id"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "abandon", "app-1", "--yes"), &left)
	if left.KeyID == "" || left.HSMKeyID == "" {
		t.Errorf("left behind: %+v", left)
	}
	s.Refused(s.Ctl(s.Control(), "key", "abandon", "app-1", "--yes"), 5)
	s.Intercept(nil)
	if key := s.Import("app-1", "--alias", "alias/a"); key.KeyID == left.KeyID || key.HSMKeyID == left.HSMKeyID {
		t.Errorf("the abandoned import was continued: %+v", key)
	}
}

// TestKilledDaemon: its plugins end with it, and the next one takes over.
func TestKilledDaemon(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	plugin := s.Backend().PID
	gone := watch(t, plugin)
	daemon.Kill()
	gone()
	s.Start()
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil)
	s.Must(s.Ctl(s.Control(), "key", "verify", "app-1"), nil)
}

// TestBackendCheck runs the conformance suite through the daemon: SoftHSM
// conforms, and says of itself that it cannot do OAEP with SHA-256.
func TestBackendCheck(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	var report struct {
		Verdict string `json:"verdict"`
		Device  struct {
			Serial string `json:"serial"`
		} `json:"device"`
		Totals struct {
			Failed       int `json:"failed"`
			NotSupported int `json:"not_supported"`
		} `json:"totals"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "check", "hsm", "--destructive"), &report)
	if report.Verdict != "passed" || report.Totals.Failed != 0 || report.Totals.NotSupported == 0 || report.Device.Serial != s.HSM.Serial {
		t.Errorf("report: %+v", report)
	}
	var keys []any
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "keys", "hsm"), &keys)
	if len(keys) != 1 {
		t.Errorf("%d keys are in the token after the check, want the imported one", len(keys))
	}
}

// TestInitToken makes a token for development, and its PINs are on no command
// line.
func TestInitToken(t *testing.T) {
	s := stage.New(t, stage.Options{Label: "fresh"})
	daemon := s.Start()
	if err := daemon.Wait(`no token with label`); err != nil {
		t.Fatal(err)
	}
	s.Write("so-pin", "officer-4711\n", 0o600)
	s.Refused(s.Ctl(s.Control(), "backend", "init-token", "hsm", "--label", "fresh"), 2, "no terminal")
	s.Write("open", s.HSM.PIN, 0o644)
	s.Refused(s.Ctl(s.Control(), "backend", "init-token", "hsm", "--label", "fresh",
		"--so-pin-file", s.Path("so-pin"), "--pin-file", s.Path("open")), 1, "chmod 600")
	made := s.Ctl(s.Control(), "backend", "init-token", "hsm", "--label", "fresh",
		"--so-pin-file", s.Path("so-pin"), "--pin-file", s.Path("pin"))
	s.Must(made, nil)
	if err := daemon.Wait("backend ready"); err != nil {
		t.Fatal(err)
	}
	s.Import("app-1")
	s.Refused(s.Ctl(s.Control(), "backend", "init-token", "hsm", "--label", "fresh",
		"--so-pin-file", s.Path("so-pin"), "--pin-file", s.Path("pin")), 1, "fresh")
}
