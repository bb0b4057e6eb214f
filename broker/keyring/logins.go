package keyring

import (
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// maxUnanswered is how many login attempts in a row may end without an answer. A
// device counts wrong PINs, not our crashes, and locks after ten; two attempts
// are far from that and forgive one crash in the middle of a login.
const maxUnanswered = 2

// Login is what is remembered of a backend's logins, across restarts and
// crashes, so that a wrong PIN is never tried twice. Nothing in it is derived
// from the PIN.
type Login struct {
	Backend string `json:"backend"`
	// Unanswered attempts were begun, and nobody knows how they ended.
	Unanswered int       `json:"unanswered"`
	LastTry    time.Time `json:"last_try"`
	// Refused is the device's definite no: no further attempt is made.
	Refused hsm.Reason `json:"refused,omitempty"`
	Code    string     `json:"code,omitempty"`
	Detail  string     `json:"detail,omitempty"`
}

// blocked returns why no attempt may be made, or nil.
func (l *Login) blocked() error {
	switch {
	case l.Refused != "":
		return &hsm.Error{Reason: l.Refused, Code: l.Code, Detail: l.Detail}
	case l.Unanswered >= maxUnanswered:
		return hsm.Errorf(hsm.LoginUnclear, "%d login attempts in a row ended without an answer, the last one at %s",
			l.Unanswered, l.LastTry.Format(time.RFC3339))
	default:
		return nil
	}
}

// BeginLogin writes down that a login is about to be attempted, or says why it
// must not be.
func (k *Keyring) BeginLogin(backend string, now time.Time) error {
	return k.updateLogin(backend, func(l *Login) error {
		if err := l.blocked(); err != nil {
			return err
		}
		l.Unanswered++
		l.LastTry = now.UTC()
		return nil
	})
}

// EndLogin writes down how an attempt ended: nil for a login, the device's
// refusal, or another error, after which the outcome stays unknown.
func (k *Keyring) EndLogin(backend string, outcome error) error {
	if outcome == nil {
		return k.RetryLogin(backend)
	}
	e, ok := errors.AsType[*hsm.Error](outcome)
	if !ok || !e.Reason.NeedsOperator() {
		return nil
	}
	return k.updateLogin(backend, func(l *Login) error {
		l.Refused, l.Code, l.Detail = e.Reason, e.Code, e.Detail
		return nil
	})
}

// RetryLogin forgets all attempts: the next one is allowed.
func (k *Keyring) RetryLogin(backend string) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(loginsBucket).Delete([]byte(backend))
	})
}

// BlockedLogin returns why a backend may not log in, or nil.
func (k *Keyring) BlockedLogin(backend string) error {
	var login Login
	err := k.db.View(func(tx *bbolt.Tx) error { return get(tx, loginsBucket, backend, &login) })
	if err != nil {
		return err
	}
	return login.blocked()
}

func (k *Keyring) updateLogin(backend string, change func(*Login) error) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.db.Update(func(tx *bbolt.Tx) error {
		login := Login{Backend: backend}
		if err := get(tx, loginsBucket, backend, &login); err != nil {
			return err
		}
		if err := change(&login); err != nil {
			return err
		}
		return put(tx, loginsBucket, backend, &login)
	})
}
