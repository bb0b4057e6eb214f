package keyring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	// Refused are the device's definite answers, by backend. None of these makes a
	// further attempt, and neither does another backend, which may be the same under
	// another name, unless it is in Allowed.
	Refused map[string]Refusal `json:"refused,omitempty"`
	// Allowed are backends that have logged in since, or that an administrator lets.
	Allowed []string `json:"allowed,omitempty"`
}

// Refusal is a device's no to a login.
type Refusal struct {
	At     time.Time  `json:"at"`
	Reason hsm.Reason `json:"reason"`
	Code   string     `json:"code,omitempty"`
	Detail string     `json:"detail,omitempty"`
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
	if r, ok := l.Refused[backend]; ok {
		return &hsm.Error{Reason: r.Reason, Code: r.Code, Detail: r.Detail}
	}
	if !slices.Contains(l.Allowed, backend) {
		for _, other := range slices.Sorted(maps.Keys(l.Refused)) {
			r := l.Refused[other]
			return &hsm.Error{Reason: r.Reason, Code: r.Code, Detail: fmt.Sprintf("%s; that was at %s by backend %q, which has the same token (serial %s)",
				r.Detail, r.At.Format(time.RFC3339), other, l.Token.Serial)}
		}
	}
	if l.Unanswered < maxUnanswered {
		return nil
	}
	made := "the last one at " + l.LastTry.Format(time.RFC3339)
	if l.Backend != backend {
		made += fmt.Sprintf(" by backend %q, which has the same token (serial %s)", l.Backend, l.Token.Serial)
	}
	return hsm.Errorf(hsm.LoginUnclear, "%d login attempts in a row ended without an answer, %s", l.Unanswered, made)
}

// allow takes back what is known against a backend.
func (l *Login) allow(backend string) {
	delete(l.Refused, backend)
	l.Unanswered = 0
	if !slices.Contains(l.Allowed, backend) {
		l.Allowed = append(l.Allowed, backend)
	}
}

// refuse remembers the device's no to a backend.
func (l *Login) refuse(backend string, refusal Refusal) {
	if l.Refused == nil {
		l.Refused = map[string]Refusal{}
	}
	l.Refused[backend] = refusal
	l.Allowed = slices.DeleteFunc(l.Allowed, func(name string) bool { return name == backend })
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
		attempt.Unanswered, attempt.Refused, attempt.Allowed = before.Unanswered+1, before.Refused, before.Allowed
		return put(tx, loginsBucket, key, attempt)
	})
	if err != nil {
		return err
	}
	return forbidden
}

func (k *Keyring) endLogin(attempt *Login, outcome error) error {
	if outcome == nil {
		attempt.allow(attempt.Backend)
		return k.updateLogins(func(tx *bbolt.Tx) error { return storeLogin(tx, attempt) })
	}
	refusal, ok := errors.AsType[*hsm.Error](outcome)
	if !ok || !definite(refusal) {
		return nil
	}
	attempt.Unanswered--
	attempt.refuse(attempt.Backend, Refusal{At: attempt.LastTry, Reason: refusal.Reason, Code: refusal.Code, Detail: refusal.Detail})
	return k.updateLogins(func(tx *bbolt.Tx) error { return storeLogin(tx, attempt) })
}

// definite reports whether an error is the device's own no to a login: to the PIN,
// or to the role and what it may do.
func definite(e *hsm.Error) bool {
	return e.Reason.NeedsOperator() || e.Reason == hsm.NotPermitted && e.Code != ""
}

// storeLogin keeps a record for as long as there is something to remember.
func storeLogin(tx *bbolt.Tx, login *Login) error {
	key := loginKey(login.Token)
	if login.Unanswered == 0 && len(login.Refused) == 0 {
		return tx.Bucket(loginsBucket).Delete([]byte(key))
	}
	return put(tx, loginsBucket, key, login)
}

// RetryLogin allows a backend its next attempt on the token that it has met last,
// whatever is remembered of that. Other backends' refusals stay theirs. A backend
// that has met no token has nothing to be allowed.
func (k *Keyring) RetryLogin(backend string) error {
	return k.updateLogins(func(tx *bbolt.Tx) error {
		token, err := lastMet(tx, backend)
		if err != nil {
			return err
		}
		var login Login
		if err := get(tx, loginsBucket, loginKey(token), &login); err != nil || login.Token == (Token{}) {
			return err
		}
		login.allow(backend)
		return storeLogin(tx, &login)
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
