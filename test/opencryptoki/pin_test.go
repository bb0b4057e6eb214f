//go:build root

package opencryptoki

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestWrongPINs walks through all that the device says of a PIN, and what the
// engine makes of it.
func TestWrongPINs(t *testing.T) {
	d := newDevice(t)
	for _, step := range []struct {
		pin    string
		reason hsm.Reason
		code   string
		says   string
		count  uint // on the device, afterwards
	}{
		{wrongPIN, hsm.PINIncorrect, "CKR_PIN_INCORRECT", "not tried again", p11.CKF_USER_PIN_COUNT_LOW},
		{wrongPIN, hsm.PINIncorrect, "CKR_PIN_INCORRECT", "one more wrong PIN locks the role", p11.CKF_USER_PIN_FINAL_TRY},
		{wrongPIN, hsm.PINLocked, "CKR_PIN_INCORRECT", "security officer", p11.CKF_USER_PIN_LOCKED},
		{userPIN, hsm.PINLocked, "CKR_PIN_LOCKED", "security officer", p11.CKF_USER_PIN_LOCKED},
	} {
		token, err := pkcs11.Open(t.Context(), d.config(step.pin))
		if err == nil {
			t.Fatal("the token opened", token.Close(context.Background()))
		}
		e, ok := errors.AsType[*hsm.Error](err)
		if !ok || e.Reason != step.reason || e.Code != step.code || !strings.Contains(e.Detail, step.says) || strings.Contains(err.Error(), step.pin) {
			t.Errorf("%v, want %s by %s with %q", err, step.reason, step.code, step.says)
		}
		d.wantCount(step.count)
	}
	d.unlock()
	if err := d.open(d.config(userPIN)).Health(t.Context()); err != nil {
		t.Error(err)
	}
	d.wantCount(0)
}

// TestSuccessClearsTheCount: the login before the last try is as good as any.
func TestSuccessClearsTheCount(t *testing.T) {
	d := newDevice(t)
	for range 2 {
		if _, err := pkcs11.Open(t.Context(), d.config(wrongPIN)); err == nil {
			t.Fatal("the token opened with a wrong PIN")
		}
	}
	d.wantCount(p11.CKF_USER_PIN_FINAL_TRY)
	d.open(d.config(userPIN))
	d.wantCount(0)
}

// newStage is the whole broker on the device, by way of the plugin that takes
// any library.
func newStage(t *testing.T, d *device, pin string) *stage.Stage {
	t.Helper()
	return stage.New(t, stage.Options{Label: tokenLabel, PIN: pin, Settings: map[string]string{"library": d.library}})
}

func refusedImport(s *stage.Stage, words ...string) {
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 1, words...)
}

// TestWrongPINReachesTheDeviceOnce: a second attempt with it would show on the
// device, and a third would lock it.
func TestWrongPINReachesTheDeviceOnce(t *testing.T) {
	d := newDevice(t)
	s := newStage(t, d, wrongPIN)
	restart := func(end func(*stage.Daemon)) {
		daemon := s.Start()
		if err := daemon.Wait("backend blocked"); err != nil {
			t.Fatal(err)
		}
		refusedImport(s, "CKR_PIN_INCORRECT", "not tried again")
		d.wantCount(p11.CKF_USER_PIN_COUNT_LOW)
		if log := daemon.Log.String(); strings.Contains(log, wrongPIN) || strings.Contains(log, userPIN) {
			t.Error("a PIN is in the log")
		}
		end(daemon)
	}
	for range 4 {
		restart((*stage.Daemon).Stop)
		restart((*stage.Daemon).Kill)
	}

	// The right PIN alone changes nothing: nobody has said yet that it is right.
	s.Write("pin", userPIN+"\n", 0o600)
	restart(func(*stage.Daemon) {})
	s.Must(s.Ctl(s.Control(), "backend", "retry-login", "hsm"), nil)
	key := s.Import("app-1")
	if key.WrappingAlgorithm != string(hsm.OAEPSHA256) {
		t.Errorf("imported with %s", key.WrappingAlgorithm)
	}
	d.wantCount(0)
	sealed := s.CtlInput([]byte("hello"), s.Application(), "encrypt", "--key", "app-1")
	s.Must(sealed, nil)
	if opened := s.CtlInput([]byte(sealed.Stdout), s.Application(), "decrypt"); opened.Stdout != "hello" {
		t.Errorf("decrypted to %q: %s", opened.Stdout, opened.Stderr)
	}
}

// TestLockedRole: each retry-login is one attempt and no more, a locked role is
// called so, and the right PIN works when the security officer has reset it.
func TestLockedRole(t *testing.T) {
	d := newDevice(t)
	s := newStage(t, d, wrongPIN)
	s.Start()
	retry := func() { s.Must(s.Ctl(s.Control(), "backend", "retry-login", "hsm"), nil) }

	refusedImport(s, "CKR_PIN_INCORRECT")
	d.wantCount(p11.CKF_USER_PIN_COUNT_LOW)
	retry()
	refusedImport(s, "CKR_PIN_INCORRECT", "one more wrong PIN locks the role")
	d.wantCount(p11.CKF_USER_PIN_FINAL_TRY)
	retry()
	refusedImport(s, "locked", "security officer")
	d.wantCount(p11.CKF_USER_PIN_LOCKED)

	s.Write("pin", userPIN+"\n", 0o600)
	retry()
	refusedImport(s, "CKR_PIN_LOCKED", "security officer")
	if b := s.Backend(); b.State != "blocked" {
		t.Errorf("backend: %+v", b)
	}

	d.unlock()
	retry()
	s.Import("app-1")
	d.wantCount(0)
}

// TestTwoBackendsOfOneToken: it is the token that counts, so what one backend
// was refused the other does not try.
func TestTwoBackendsOfOneToken(t *testing.T) {
	d := newDevice(t)
	s := newStage(t, d, wrongPIN)
	s.Write("kmsbrokerd.toml", s.Read("kmsbrokerd.toml")+fmt.Sprintf(`
[backend.twin]
plugin   = "softhsm"
pin_file = %q
settings = { token_label = %q, library = %q }
allow_foreign_endpoint = true
`, s.Path("pin"), tokenLabel, d.library), 0o644)
	for range 2 {
		daemon := s.Start()
		for _, backend := range []string{"hsm", "twin"} {
			s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", backend), 1, "CKR_PIN_INCORRECT")
		}
		d.wantCount(p11.CKF_USER_PIN_COUNT_LOW)
		daemon.Stop()
	}
}
