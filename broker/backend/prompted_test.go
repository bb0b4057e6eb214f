package backend

import (
	"errors"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/hsm"
)

var typed = []byte("1234")

// refusedAs fails the test unless err is a failure for that reason whose hint
// names the next command.
func refusedAs(t *testing.T, err error, reason, command string) {
	t.Helper()
	if f := failure.From(err); err == nil || f.Kind != failure.WrongState || f.Reason != reason || !strings.Contains(f.Hint, command) {
		t.Errorf("got %+v, want %s in a wrong state with a hint at %q", err, reason, command)
	}
}

// TestEnteredPIN is used for the first process and for the next ones.
func TestEnteredPIN(t *testing.T) {
	b, attempts := live(t, t.TempDir(), "good", "prompted")
	defer b.stop()
	if s := b.Status().State; s != WaitingForPIN {
		t.Errorf("before the PIN: %s", s)
	}
	refusedAs(t, b.Token().Health(t.Context()), string(hsm.PINMissing), "backend login prompted")
	_, err := b.Check(t.Context(), CheckRequest{})
	refusedAs(t, err, string(hsm.PINMissing), "backend login prompted")
	if f := failure.From(b.Login(t.Context(), nil)); f.Kind != failure.Invalid {
		t.Errorf("no PIN: %v", f)
	}
	if err := b.Login(t.Context(), typed); err != nil {
		t.Fatal(err)
	}
	if err := b.Token().Health(t.Context()); err != nil || attempts() != 1 {
		t.Errorf("after the login: %v, %d PINs were sent", err, attempts())
	}
	refusedAs(t, b.Login(t.Context(), typed), "PIN_KNOWN", "")
	b.mu.Lock()
	process := b.process
	b.mu.Unlock()
	process.Kill()
	b.await(Restarting)
	b.await(Ready)
	if attempts() != 2 {
		t.Errorf("%d PINs were sent to two processes", attempts())
	}
}

// TestRefusedPINIsWiped: it blocks as a file's does, and what follows are two
// decisions: to allow one more login, and which PIN that is.
func TestRefusedPINIsWiped(t *testing.T) {
	dir := t.TempDir()
	b, _ := live(t, dir, "wrong", "prompted")
	if err := b.Login(t.Context(), typed); !errors.Is(err, hsm.PINIncorrect) || b.Status().State != Blocked {
		t.Fatalf("a wrong PIN: %v, %+v", err, b.Status())
	}
	if b.config.Prompted.known() {
		t.Error("the refused PIN is still in memory")
	}
	refusedAs(t, b.Login(t.Context(), typed), "LOGIN_BLOCKED", "retry-login prompted")
	b.stop()
	b, attempts := live(t, dir, "wrong", "prompted") // the next daemon
	defer b.stop()
	awaitBlocked(t, b)
	refusedAs(t, b.Login(t.Context(), typed), "LOGIN_BLOCKED", "retry-login prompted")
	if err := b.RetryLogin(); err != nil {
		t.Fatal(err)
	}
	b.await(WaitingForPIN)
	if attempts() != 1 {
		t.Errorf("%d PINs were sent before another one was entered", attempts())
	}
	if err := b.Login(t.Context(), typed); !errors.Is(err, hsm.PINIncorrect) || attempts() != 2 {
		t.Errorf("a wrong PIN after retry-login: %v, %d PINs were sent", err, attempts())
	}
}

// TestUnclearPINIsKept: nobody has said that it is wrong.
func TestUnclearPINIsKept(t *testing.T) {
	b, attempts := live(t, t.TempDir(), "crash", "prompted")
	defer b.stop()
	// The first crash may be told before the second one.
	if err := b.Login(t.Context(), typed); !errors.Is(err, hsm.TokenGone) && !errors.Is(err, hsm.LoginUnclear) {
		t.Fatal(err)
	}
	awaitBlocked(t, b)
	if attempts() != 2 || !b.config.Prompted.known() {
		t.Errorf("%d PINs were sent; known %v", attempts(), b.config.Prompted.known())
	}
	if err := b.RetryLogin(); err != nil {
		t.Fatal(err)
	}
	b.await(Blocked)
	if attempts() != 4 {
		t.Errorf("%d PINs were sent after retry-login, want 4", attempts())
	}
}

// TestPINFromAFileIsNotAskedFor refuses a PIN that nobody would use.
func TestPINFromAFileIsNotAskedFor(t *testing.T) {
	b, _ := live(t, t.TempDir(), "good", "hsm")
	defer b.stop()
	refusedAs(t, b.Login(t.Context(), typed), "PIN_NOT_ASKED", "")
}
