package keyring

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

var (
	payments  = hsm.TokenID{Manufacturer: "SafeNet", Model: "LunaSA 7.2.0", Serial: "1234567890123"}
	wrongPIN  = &hsm.Error{Reason: hsm.PINIncorrect, Code: "CKR_PIN_INCORRECT", Detail: "log in"}
	succeeded error
	// The device does not know the role that is configured.
	notPermitted = &hsm.Error{Reason: hsm.NotPermitted, Code: "CKR_USER_TYPE_INVALID", Detail: "log in"}
)

// errCrash as an outcome means that the attempt is never ended.
var errCrash = errors.New("the daemon crashed")

// attempt makes one login, which must be allowed exactly if want is empty.
func attempt(t *testing.T, k *Keyring, backend string, token hsm.TokenID, outcome error, want hsm.Reason) error {
	t.Helper()
	end, err := k.BeginLogin(t.Context(), token, backend, time.Now())
	if want == "" && err != nil || want != "" && !errors.Is(err, want) {
		t.Fatalf("BeginLogin for %s on %v: %v, want %q", backend, token, err, want)
	}
	if err == nil && !errors.Is(outcome, errCrash) {
		if err := end(outcome); err != nil {
			t.Fatal(err)
		}
	}
	return err
}

func retry(t *testing.T, k *Keyring, backend string) {
	t.Helper()
	if err := k.RetryLogin(backend); err != nil {
		t.Fatal(err)
	}
}

// TestLoginsAcrossRestarts opens the registry anew before each step, as a daemon
// does that crashes whenever it can.
func TestLoginsAcrossRestarts(t *testing.T) {
	type step = func(*testing.T, *Keyring)
	try := func(outcome error, want hsm.Reason) step {
		return func(t *testing.T, k *Keyring) { t.Helper(); attempt(t, k, "hsm", payments, outcome, want) }
	}
	unblock := func(t *testing.T, k *Keyring) { t.Helper(); retry(t, k, "hsm") }
	lost, late := hsm.Errorf(hsm.TokenGone, "x"), hsm.Errorf(hsm.Timeout, "x")
	tests := []struct {
		name  string
		steps []step
	}{
		{"success is forgotten", []step{try(succeeded, ""), try(succeeded, ""), try(succeeded, ""), try(succeeded, "")}},
		{"a wrong PIN is never tried again", []step{try(wrongPIN, ""), try(nil, hsm.PINIncorrect), try(nil, hsm.PINIncorrect)}},
		{"a crash may be repeated once", []step{try(errCrash, ""), try(errCrash, ""), try(nil, hsm.LoginUnclear), try(nil, hsm.LoginUnclear)}},
		{"a lost link is no answer", []step{try(lost, ""), try(late, ""), try(nil, hsm.LoginUnclear)}},
		{"success after a crash is forgotten", []step{try(errCrash, ""), try(succeeded, ""), try(errCrash, ""), try(errCrash, ""), try(nil, hsm.LoginUnclear)}},
		{"what is no PIN's fault is an answer too", []step{try(notPermitted, ""), try(nil, hsm.NotPermitted), unblock, try(succeeded, "")}},
		{"an administrator unblocks", []step{try(wrongPIN, ""), try(nil, hsm.PINIncorrect), unblock, try(succeeded, "")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, step := range tt.steps {
				k := open(t, dir)
				step(t, k)
				other := hsm.TokenID{Manufacturer: "SafeNet", Serial: "2"}
				attempt(t, k, "another", other, errCrash, "")
				retry(t, k, "another")
				if err := k.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestOneTokenHasOneAttempt: what is remembered belongs to the token, whatever
// the backend is called that has it.
func TestOneTokenHasOneAttempt(t *testing.T) {
	k := open(t, t.TempDir())
	attempt(t, k, "hsm", payments, wrongPIN, "")
	err := attempt(t, k, "renamed", payments, nil, hsm.PINIncorrect)
	for _, word := range []string{`"hsm"`, payments.Serial, "CKR_PIN_INCORRECT"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the refusal of another backend lacks %s: %v", word, err)
		}
	}
	upgraded := payments
	upgraded.Model = "LunaSA 7.8.0"
	attempt(t, k, "hsm", upgraded, nil, hsm.PINIncorrect)
	for _, foreign := range []hsm.TokenID{
		{Manufacturer: payments.Manufacturer, Model: payments.Model, Serial: "1234567890124"},
		{Manufacturer: "SoftHSM project", Model: payments.Model, Serial: payments.Serial},
	} {
		attempt(t, k, "hsm", foreign, succeeded, "")
	}
}

// TestSuccessIsOnesOwn: that one backend logs in does not let another one repeat the
// PIN that was refused to it, and that refusal does not hold up the first again.
func TestSuccessIsOnesOwn(t *testing.T) {
	dir := t.TempDir()
	again := func() *Keyring { return open(t, dir) }
	k := again()
	attempt(t, k, "wrong", payments, wrongPIN, "")
	attempt(t, k, "right", payments, nil, hsm.PINIncorrect)
	retry(t, k, "right")
	attempt(t, k, "right", payments, succeeded, "")
	for range 3 {
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		k = again()
		attempt(t, k, "wrong", payments, nil, hsm.PINIncorrect)
		attempt(t, k, "third", payments, nil, hsm.PINIncorrect)
		attempt(t, k, "right", payments, succeeded, "")
	}
	retry(t, k, "wrong")
	attempt(t, k, "wrong", payments, succeeded, "")
	attempt(t, k, "third", payments, succeeded, "") // nothing is remembered any more
}

// TestRetryLoginIsForTheTokenThatWasMet: also for one that the backend met only
// to be sent away.
func TestRetryLoginIsForTheTokenThatWasMet(t *testing.T) {
	k := open(t, t.TempDir())
	retry(t, k, "nobody")
	attempt(t, k, "hsm", payments, wrongPIN, "")
	elsewhere := hsm.TokenID{Manufacturer: "SafeNet", Serial: "2"}
	attempt(t, k, "hsm", elsewhere, wrongPIN, "") // its settings were changed
	retry(t, k, "hsm")
	attempt(t, k, "hsm", elsewhere, succeeded, "")
	attempt(t, k, "second", payments, nil, hsm.PINIncorrect)
	if err := k.BlockedLogin("second"); !errors.Is(err, hsm.PINIncorrect) {
		t.Errorf("BlockedLogin: %v", err)
	}
	retry(t, k, "second")
	if err := k.BlockedLogin("second"); err != nil {
		t.Errorf("BlockedLogin after retry-login: %v", err)
	}
	attempt(t, k, "hsm", payments, nil, hsm.PINIncorrect) // its own, from before
	retry(t, k, "hsm")
	attempt(t, k, "hsm", payments, succeeded, "")
}

// TestLoginsTakeTurns: the second backend waits for the outcome of the first.
func TestLoginsTakeTurns(t *testing.T) {
	k := open(t, t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		end, err := k.BeginLogin(t.Context(), payments, "first", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.BeginLogin(impatient, payments, "second", time.Now()); !errors.Is(err, hsm.Busy) {
			t.Errorf("an attempt beside another one: %v", err)
		}
		second := make(chan error)
		go func() {
			_, err := k.BeginLogin(t.Context(), payments, "second", time.Now())
			second <- err
		}()
		synctest.Wait()
		if err := end(wrongPIN); err != nil {
			t.Fatal(err)
		}
		if err := <-second; !errors.Is(err, hsm.PINIncorrect) {
			t.Errorf("after the refusal of the first: %v", err)
		}
	})
}

func TestRefusalIsKeptAsItWas(t *testing.T) {
	k := open(t, t.TempDir())
	attempt(t, k, "hsm", payments, &hsm.Error{Reason: hsm.PINLocked, Code: "CKR_PIN_LOCKED", Detail: "log in to token x"}, "")
	e, ok := errors.AsType[*hsm.Error](k.BlockedLogin("hsm"))
	if !ok || e.Reason != hsm.PINLocked || e.Code != "CKR_PIN_LOCKED" || e.Detail != "log in to token x" {
		t.Errorf("BlockedLogin = %+v", e)
	}
}
