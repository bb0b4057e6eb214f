package proxy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// token is a token as all clients share it.
type token struct {
	name string
	slot uint64 // its number to clients
	pool *pool
	objects

	clients, sessions int // of clients, under Proxy.mu

	// keeping is held for a call on the session that session objects are made on. They
	// last as long as it does, and are destroyed one by one when their clients end.
	keeping sync.Mutex
	keeper  atomic.Pointer[lease] // changed while keeping is held; nil while there are none
	kept    int                   // objects on it
}

func newToken(t Token, slot uint64, config Config) *token {
	return &token{
		name: t.Name, slot: slot, pool: newPool(t.Backend, config.Limits),
		objects: newObjects(config.Now),
	}
}

// once makes a call that needs nothing of other calls, on a session of its own. The
// handles in it are those of this device, nil if there are none.
func (t *token) once(ctx context.Context, who authz.Identity, device *backend.Device, call *cryptoki.Call) (*cryptoki.Answer, *backend.Device) {
	for attempt := 0; ; attempt++ {
		l, err := t.pool.acquireOn(ctx, who, device)
		if err != nil {
			return cryptoki.Refuse(away(err)), nil
		}
		answer, err := l.do(ctx, call)
		if err != nil {
			l.release(false)
			return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR), nil
		}
		ours := ownFault(answer.RV)
		l.release(!ours)
		switch {
		case !ours:
			return answer, l.device
		case attempt == 0:
			// It died while it lay idle. The device has not begun the call.
		default:
			return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR), nil
		}
	}
}

// ownFault reports a return value that is about the session or the login that is lent,
// of which the client knows nothing.
func ownFault(rv cryptoki.RV) bool {
	switch rv {
	case cryptoki.CKR_SESSION_HANDLE_INVALID, cryptoki.CKR_SESSION_CLOSED, cryptoki.CKR_USER_NOT_LOGGED_IN,
		cryptoki.CKR_CRYPTOKI_NOT_INITIALIZED, cryptoki.CKR_SESSION_READ_ONLY, cryptoki.CKR_PIN_EXPIRED:
		return true
	default:
		return false
	}
}

// away is the return value for a session that could not be had.
func away(err error) cryptoki.RV {
	switch {
	case errors.Is(err, errQueue), errors.Is(err, cryptoki.CKR_SESSION_COUNT):
		// Valid for every function, and what it says is true.
		return cryptoki.CKR_DEVICE_MEMORY
	case hsm.ReasonOf(err) == hsm.TokenGone, hsm.ReasonOf(err) == hsm.Timeout:
		return cryptoki.CKR_DEVICE_REMOVED
	default:
		return cryptoki.CKR_DEVICE_ERROR
	}
}
