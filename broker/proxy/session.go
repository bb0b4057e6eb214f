package proxy

import (
	"context"
	"errors"
	"slices"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/pin"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// session is one of a client's.
type session struct {
	handle uint64
	token  *token
	rw     bool

	found  []uint64 // by the search that is active
	search bool

	lease      *lease // while an operation is active
	operations map[kind]*operation
}

func (a *Application) openSession(ctx context.Context, t *token, flags uint64) *cryptoki.Answer {
	if flags&cryptoki.CKF_SERIAL_SESSION == 0 {
		return cryptoki.Refuse(cryptoki.CKR_SESSION_PARALLEL_NOT_SUPPORTED)
	}
	if !t.present(ctx) {
		return cryptoki.Refuse(cryptoki.CKR_TOKEN_NOT_PRESENT)
	}
	if !a.proxy.take(a.who, t, !a.uses(t)) {
		return cryptoki.Refuse(cryptoki.CKR_SESSION_COUNT)
	}
	s := &session{handle: a.handle(), token: t, rw: flags&cryptoki.CKF_RW_SESSION != 0}
	a.sessions[s.handle] = s
	return &cryptoki.Answer{Numbers: [4]uint64{s.handle}}
}

// closeSession ends a session with its operations and session objects. With the last
// one on a token the login ends.
func (a *Application) closeSession(ctx context.Context, s *session) {
	s.end()
	for handle, e := range a.entries {
		if e.owner == s {
			a.discard(ctx, handle, e)
		}
	}
	delete(a.sessions, s.handle)
	last := !a.uses(s.token)
	a.proxy.give(a.who, s.token, last)
	if last {
		a.forgetToken(ctx, s.token)
	}
}

// uses reports whether the client has a session on a token.
func (a *Application) uses(t *token) bool {
	for _, s := range a.sessions {
		if s.token == t {
			return true
		}
	}
	return false
}

func (a *Application) closeSessions(ctx context.Context, t *token) {
	for _, s := range a.sessions {
		if s.token == t {
			a.closeSession(ctx, s)
		}
	}
	a.forgetToken(ctx, t)
}

// forgetToken ends what a client has on a token without a session there.
func (a *Application) forgetToken(ctx context.Context, t *token) {
	a.lock(t)
	for handle, e := range a.entries {
		if e.token == t {
			a.discard(ctx, handle, e)
		}
	}
}

func (a *Application) sessionInfo(s *session) *cryptoki.Answer {
	state, flags := cryptoki.CKS_RO_PUBLIC_SESSION, cryptoki.CKF_SERIAL_SESSION
	switch in := a.loggedIn[s.token]; {
	case s.rw && in:
		state = cryptoki.CKS_RW_USER_FUNCTIONS
	case s.rw:
		state = cryptoki.CKS_RW_PUBLIC_SESSION
	case in:
		state = cryptoki.CKS_RO_USER_FUNCTIONS
	}
	if s.rw {
		flags |= cryptoki.CKF_RW_SESSION
	}
	return &cryptoki.Answer{Numbers: [4]uint64{s.token.slot, state, flags}}
}

// login is answered by who the client is. The PIN does not matter, unless a grant asks
// for one, and it never reaches the device.
func (a *Application) login(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	given := call.Data[0]
	defer clear(given)
	switch user := call.Numbers[1]; {
	case user == cryptoki.CKU_CONTEXT_SPECIFIC:
		return cryptoki.Refuse(cryptoki.CKR_OPERATION_NOT_INITIALIZED)
	case user != cryptoki.CKU_USER:
		return cryptoki.Refuse(cryptoki.CKR_USER_TYPE_INVALID)
	case a.loggedIn[s.token]:
		return cryptoki.Refuse(cryptoki.CKR_USER_ALREADY_LOGGED_IN)
	}
	if a.rights().AsksPIN(s.token.name) {
		if rv := a.unlock(ctx, s.token, given); rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
	}
	a.loggedIn[s.token] = true
	return cryptoki.Refuse(cryptoki.CKR_OK)
}

// unlock tries an application PIN, which is on record however it ends.
func (a *Application) unlock(ctx context.Context, t *token, given []byte) cryptoki.RV {
	unlocked, err := a.rights().Login(ctx, t.name, given)
	rv := cryptoki.CKR_OK
	switch {
	case errors.Is(err, pin.ErrWrong):
		rv = cryptoki.CKR_PIN_INCORRECT
	case errors.Is(err, pin.ErrLocked):
		rv = cryptoki.CKR_PIN_LOCKED
	case err != nil:
		rv = cryptoki.CKR_FUNCTION_FAILED
	}
	if a.recordLogin(t, rv) != nil {
		return cryptoki.CKR_DEVICE_ERROR
	}
	if rv == cryptoki.CKR_OK {
		a.unlocked, a.granted = append(a.unlocked, unlocked...), nil
	}
	return rv
}

// lock takes back what PINs have unlocked on a token.
func (a *Application) lock(t *token) {
	delete(a.loggedIn, t)
	a.unlocked = slices.DeleteFunc(a.unlocked, func(u authz.Unlocked) bool { return u.Token == t.name })
	a.granted = nil
}

// logout takes away the handles of private objects, for good, and ends private session
// objects and all operations.
func (a *Application) logout(ctx context.Context, s *session) *cryptoki.Answer {
	if !a.loggedIn[s.token] {
		return cryptoki.Refuse(cryptoki.CKR_USER_NOT_LOGGED_IN)
	}
	a.lock(s.token)
	for _, other := range a.sessions {
		if other.token == s.token {
			other.end()
		}
	}
	for handle, e := range a.entries {
		if e.token == s.token && e.object.private {
			a.discard(ctx, handle, e)
		}
	}
	return cryptoki.Refuse(cryptoki.CKR_OK)
}
