package backend

import (
	"bytes"
	"context"
	"sync"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/hsm"
)

// PromptedPIN is a PIN that an administrator enters. It lives in memory alone,
// for the logins of every process that follows, until the daemon stops or the
// token refuses it.
type PromptedPIN struct {
	mu    sync.Mutex
	pin   []byte        // nil when there is none
	given chan struct{} // full after a PIN was given
}

// NewPromptedPIN makes one that nobody has entered yet.
func NewPromptedPIN() *PromptedPIN { return &PromptedPIN{given: make(chan struct{}, 1)} }

func (p *PromptedPIN) give(pin []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	p.pin = bytes.Clone(pin)
	p.given <- struct{}{} // has room: forget emptied it
}

// read returns a copy, which the caller wipes; nil when there is none.
func (p *PromptedPIN) read() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.pin)
}

func (p *PromptedPIN) known() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pin != nil
}

func (p *PromptedPIN) wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
}

func (p *PromptedPIN) forget() {
	clear(p.pin)
	p.pin = nil
	select {
	case <-p.given:
	default:
	}
}

// first is the state before a login.
func (b *Backend) first() State {
	if p := b.config.Prompted; p != nil && !p.known() {
		return WaitingForPIN
	}
	return Starting
}

// awaitPIN returns when there is a PIN to log in with, or when no login may be
// attempted whatever the PIN is. One that is in a file is looked at later.
func (b *Backend) awaitPIN(ctx context.Context) error {
	p := b.config.Prompted
	if p == nil {
		return nil
	}
	asked := false
	for !p.known() {
		if err := b.config.Logins.BlockedLogin(b.config.Name); err != nil {
			return err
		}
		b.config.Log.Info("backend waits for its PIN", "backend", b.config.Name)
		b.set(WaitingForPIN, nil, nil)
		asked = true
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.given:
		}
		select {
		case <-b.retry: // was for a login before this PIN
		default:
		}
	}
	if asked {
		b.set(Starting, nil, nil)
	}
	return nil
}

// waiting is the failure of a call to a backend that has no PIN yet.
func (b *Backend) waiting() error {
	cause := hsm.Errorf(hsm.PINMissing, "backend %q waits for its PIN", b.config.Name)
	f := failure.New(failure.WrongState, string(cause.Reason), "%s", cause.Detail).
		WithHint("`kmsbrokerctl backend login %s` asks for it", b.config.Name)
	f.Err = cause
	return f
}

// Login gives the backend the PIN that it waits for, and returns nil when the
// login has worked. The caller wipes pin.
//
// A PIN that was refused is wiped, and the backend is blocked like any other: no
// PIN is taken before RetryLogin, so that two slips of the hand are never two
// attempts. After other failures the PIN is kept, and the login is attempted as
// often as it would be with a file.
func (b *Backend) Login(ctx context.Context, pin []byte) error {
	if err := b.take(pin); err != nil {
		return err
	}
	for {
		b.mu.Lock()
		status, changed, down := b.status, b.changed, b.down
		b.mu.Unlock()
		switch {
		case status.State == Ready:
			return nil
		case status.State == WaitingForPIN && !b.config.Prompted.known():
			return b.waiting() // refused, and another administrator was faster
		case status.State == Blocked:
			return b.unavailable(hsm.ReasonOf(status.Err), "is blocked", status.Err)
		case down && status.Err != nil, status.State == Stopped:
			return b.unavailable(hsm.TokenGone, "has its PIN and is "+string(status.State), status.Err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return b.unavailable(hsm.Timeout, "has its PIN and is "+string(status.State), ctx.Err())
		}
	}
}

// take accepts a PIN in the one state that waits for it.
func (b *Backend) take(pin []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.config.Prompted == nil:
		return failure.New(failure.WrongState, "PIN_NOT_ASKED", "backend %q reads its PIN from its pin_file and asks nobody for it", b.config.Name)
	case len(pin) == 0:
		return failure.New(failure.Invalid, "PIN_EMPTY", "the PIN is empty")
	case b.status.State == Blocked:
		return failure.New(failure.WrongState, "LOGIN_BLOCKED", "backend %q takes no PIN while it is blocked: %v", b.config.Name, b.status.Err).
			WithHint("find out why, allow one more login with `kmsbrokerctl backend retry-login %s`, and enter the PIN then", b.config.Name)
	case b.status.State != WaitingForPIN:
		return failure.New(failure.WrongState, "PIN_KNOWN", "backend %q has its PIN already and is %s", b.config.Name, b.status.State)
	}
	b.status.State, b.status.Err, b.down = Starting, nil, false
	b.config.Prompted.give(pin)
	return nil
}

// RetryLogin forgets refused and unanswered logins to the token that the backend
// has met last, so that one more attempt is made now, or at the next start, or
// when the PIN is entered.
func (b *Backend) RetryLogin() error {
	if err := b.config.Logins.RetryLogin(b.config.Name); err != nil {
		return err
	}
	select {
	case b.retry <- struct{}{}:
	default: // another administrator was faster
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.status.State == Blocked {
		b.status.State, b.status.Err, b.down = b.first(), nil, false
	}
	return nil
}
