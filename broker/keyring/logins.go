package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// maxUnanswered is how many login attempts in a row may end without an answer. A
// device counts wrong PINs, not our crashes, and locks after ten; two attempts
// are far from that and forgive one crash in the middle of a login.
const maxUnanswered = 2

// Login is what is remembered of the logins to a token, across restarts and
// crashes and whichever backend made them, so that a wrong PIN is never tried
// twice. Nothing in it is derived from the PIN.
type Login struct {
	Token Token `json:"token"`
	// Backend that made the last attempt, and when.
	Backend string    `json:"backend"`
	LastTry time.Time `json:"last_try"`
	// Unanswered attempts were begun, and nobody knows how they ended.
	Unanswered int `json:"unanswered"`
	// Refused is the device's definite no: no further attempt is made.
	Refused hsm.Reason `json:"refused,omitempty"`
	Code    string     `json:"code,omitempty"`
	Detail  string     `json:"detail,omitempty"`
}

// Token is an [hsm.TokenID] as the registry keeps it.
type Token struct {
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Serial       string `json:"serial"`
}

// loginKey is the name of a token's record. The model is left out: that of a
// Luna contains the version of its software, and an upgrade is no reason to
// forget. NUL is no character of a [hsm.TokenID].
func loginKey(token Token) string { return token.Manufacturer + "\x00" + token.Serial }

// blocked returns why backend may make no attempt, or nil.
func (l *Login) blocked(backend string) error {
	made := "the last one at " + l.LastTry.Format(time.RFC3339)
	if l.Backend != backend {
		made += fmt.Sprintf(" by backend %q, which has the same token (serial %s)", l.Backend, l.Token.Serial)
	}
	switch {
	case l.Refused != "" && l.Backend == backend:
		return &hsm.Error{Reason: l.Refused, Code: l.Code, Detail: l.Detail}
	case l.Refused != "":
		return &hsm.Error{Reason: l.Refused, Code: l.Code, Detail: l.Detail + "; " + made}
	case l.Unanswered >= maxUnanswered:
		return hsm.Errorf(hsm.LoginUnclear, "%d login attempts in a row ended without an answer, %s", l.Unanswered, made)
	default:
		return nil
	}
}

// BeginLogin writes down that a backend is about to log in to a token, or says
// why it must not. Attempts on one token are made one after another, so that two
// backends do not both offer a wrong PIN: BeginLogin waits for the attempt
// before, and answers Busy when ctx ends first.
//
// The caller makes the attempt and then calls end, once, with how it ended: nil
// for a login, the device's refusal, or another error, after which the outcome
// stays unknown.
func (k *Keyring) BeginLogin(ctx context.Context, token hsm.TokenID, backend string, now time.Time) (end func(outcome error) error, err error) {
	attempt := Login{Token: Token(token), Backend: backend, LastTry: now.UTC()}
	turn := k.loginTurn(loginKey(attempt.Token))
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return nil, hsm.Errorf(hsm.Busy, "another backend is logging in to the same token (serial %s)", token.Serial)
	}
	if err := k.beginLogin(&attempt); err != nil {
		<-turn
		return nil, err
	}
	return func(outcome error) error {
		defer func() { <-turn }()
		return k.endLogin(&attempt, outcome)
	}, nil
}

// loginTurn is full while an attempt on the token is under way.
func (k *Keyring) loginTurn(key string) chan struct{} {
	k.turning.Lock()
	defer k.turning.Unlock()
	turn, ok := k.turns[key]
	if !ok {
		turn = make(chan struct{}, 1)
		k.turns[key] = turn
	}
	return turn
}

func (k *Keyring) beginLogin(attempt *Login) error {
	key := loginKey(attempt.Token)
	var forbidden error
	err := k.updateLogins(func(tx *bbolt.Tx) error {
		// Remembered also when it may not log in: it is this token that an
		// administrator then unblocks.
		if err := put(tx, tokensBucket, attempt.Backend, attempt.Token); err != nil {
			return err
		}
		var before Login
		if err := get(tx, loginsBucket, key, &before); err != nil {
			return err
		}
		if forbidden = before.blocked(attempt.Backend); forbidden != nil {
			return nil
		}
		attempt.Unanswered = before.Unanswered + 1
		return put(tx, loginsBucket, key, attempt)
	})
	if err != nil {
		return err
	}
	return forbidden
}

func (k *Keyring) endLogin(attempt *Login, outcome error) error {
	key := loginKey(attempt.Token)
	if outcome == nil {
		return k.updateLogins(func(tx *bbolt.Tx) error { return tx.Bucket(loginsBucket).Delete([]byte(key)) })
	}
	refusal, ok := errors.AsType[*hsm.Error](outcome)
	if !ok || !refusal.Reason.NeedsOperator() {
		return nil
	}
	attempt.Refused, attempt.Code, attempt.Detail = refusal.Reason, refusal.Code, refusal.Detail
	return k.updateLogins(func(tx *bbolt.Tx) error { return put(tx, loginsBucket, key, attempt) })
}

// RetryLogin forgets all attempts on the token that a backend has met last: the
// next one is allowed. A backend that has met none has nothing to forget.
func (k *Keyring) RetryLogin(backend string) error {
	return k.updateLogins(func(tx *bbolt.Tx) error {
		token, err := lastMet(tx, backend)
		if err != nil {
			return err
		}
		return tx.Bucket(loginsBucket).Delete([]byte(loginKey(token)))
	})
}

// BlockedLogin returns why a backend may not log in to the token that it has met
// last, or nil.
func (k *Keyring) BlockedLogin(backend string) error {
	var login Login
	err := k.db.View(func(tx *bbolt.Tx) error {
		token, err := lastMet(tx, backend)
		if err != nil {
			return err
		}
		return get(tx, loginsBucket, loginKey(token), &login)
	})
	if err != nil {
		return err
	}
	return login.blocked(backend)
}

// lastMet is the token that a backend has met last, no token if there was none.
func lastMet(tx *bbolt.Tx, backend string) (token Token, err error) {
	err = get(tx, tokensBucket, backend, &token)
	return token, err
}

func (k *Keyring) updateLogins(change func(*bbolt.Tx) error) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.db.Update(change)
}
