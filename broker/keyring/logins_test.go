package keyring

import (
	"errors"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// TestLoginsAcrossRestarts opens the registry anew before each step, as a daemon
// does that crashes whenever it can.
func TestLoginsAcrossRestarts(t *testing.T) {
	wrong := &hsm.Error{Reason: hsm.PINIncorrect, Code: "CKR_PIN_INCORRECT", Detail: "log in"}
	begin := func(want hsm.Reason) func(*testing.T, *Keyring) {
		return func(t *testing.T, k *Keyring) {
			t.Helper()
			err := k.BeginLogin("hsm", time.Now())
			if want == "" && err != nil || want != "" && !errors.Is(err, want) {
				t.Fatalf("BeginLogin: %v, want %q", err, want)
			}
		}
	}
	end := func(outcome error) func(*testing.T, *Keyring) {
		return func(t *testing.T, k *Keyring) {
			t.Helper()
			if err := k.EndLogin("hsm", outcome); err != nil {
				t.Fatal(err)
			}
		}
	}
	retry := func(t *testing.T, k *Keyring) {
		t.Helper()
		if err := k.RetryLogin("hsm"); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		steps []func(*testing.T, *Keyring)
	}{
		{"success is forgotten", []func(*testing.T, *Keyring){begin(""), end(nil), begin(""), end(nil), begin(""), end(nil), begin("")}},
		{"a wrong PIN is never tried again", []func(*testing.T, *Keyring){begin(""), end(wrong), begin(hsm.PINIncorrect), begin(hsm.PINIncorrect)}},
		{"a crash may be repeated once", []func(*testing.T, *Keyring){begin(""), begin(""), begin(hsm.LoginUnclear), begin(hsm.LoginUnclear)}},
		{"a lost link is no answer", []func(*testing.T, *Keyring){begin(""), end(hsm.Errorf(hsm.TokenGone, "x")), begin(""), end(hsm.Errorf(hsm.Timeout, "x")), begin(hsm.LoginUnclear)}},
		{"success after a crash is forgotten", []func(*testing.T, *Keyring){begin(""), begin(""), end(nil), begin(""), begin("")}},
		{"an administrator unblocks", []func(*testing.T, *Keyring){begin(""), end(wrong), begin(hsm.PINIncorrect), retry, begin(""), end(nil)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, step := range tt.steps {
				k := open(t, dir)
				step(t, k)
				if err := k.BeginLogin("another", time.Now()); err != nil {
					t.Errorf("another backend is affected: %v", err)
				}
				retryOther(t, k)
				if err := k.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func retryOther(t *testing.T, k *Keyring) {
	t.Helper()
	if err := k.RetryLogin("another"); err != nil {
		t.Fatal(err)
	}
}

func TestRefusalIsKeptAsItWas(t *testing.T) {
	k := open(t, t.TempDir())
	if err := k.BeginLogin("hsm", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := k.EndLogin("hsm", &hsm.Error{Reason: hsm.PINLocked, Code: "CKR_PIN_LOCKED", Detail: "log in to token x"}); err != nil {
		t.Fatal(err)
	}
	e, ok := errors.AsType[*hsm.Error](k.BlockedLogin("hsm"))
	if !ok || e.Reason != hsm.PINLocked || e.Code != "CKR_PIN_LOCKED" || e.Detail != "log in to token x" {
		t.Errorf("BlockedLogin = %+v", e)
	}
}
