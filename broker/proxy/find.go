package proxy

import (
	"context"
	"slices"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

const (
	// foundAtOnce is how many handles a device is asked for in one call.
	foundAtOnce = 1024
	// maxFound bounds what one search finds.
	maxFound = maxKnown
)

// findInit does the whole search, so that it costs the device no session while the
// client reads what was found, and so that what the client may not see is left out
// before anything is counted.
func (a *Application) findInit(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	if s.search {
		return cryptoki.Refuse(cryptoki.CKR_OPERATION_ACTIVE)
	}
	handles, device, rv := a.search(ctx, s.token, call.Templates[0])
	if rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	secret := slices.ContainsFunc(call.Templates[0], func(asked cryptoki.Attribute) bool { return material[asked.Type] })
	found := []uint64{}
	for _, h := range handles {
		if mine, ok := a.ownAt(s.token, device, h); ok {
			if e := a.entries[mine]; a.seen(e) != nil && (!secret || a.mayRead(e)) {
				found = append(found, mine)
			}
			continue
		}
		o, rv := s.token.describe(ctx, a.who, device, h)
		if rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
		e := entry{token: s.token, object: o}
		if o != nil && a.visible(s.token, o, false) && (!secret || a.mayRead(&e)) {
			found = append(found, a.enter(e))
		}
	}
	s.found, s.search = found, true
	return cryptoki.Refuse(cryptoki.CKR_OK)
}

// ownAt finds the client's own session object behind a handle of the device.
func (a *Application) ownAt(t *token, device *backend.Device, handle uint64) (mine uint64, ok bool) {
	mine, ok = a.names[place{t, handle}]
	if !ok {
		return 0, false
	}
	e := a.entries[mine]
	return mine, e.owner != nil && e.object.device == device && t.keeper.Load() == e.keeper
}

// mayRead reports whether the client may read the secret of a key, and so whether a
// search may tell it that it guessed the secret.
func (a *Application) mayRead(e *entry) bool {
	o, asked := e.named()
	return !asked || !e.object.secret() || a.rights().Decide(authz.ObjectExport, o).Allowed
}

// search returns the device's handles of all objects that match.
func (a *Application) search(ctx context.Context, t *token, template []cryptoki.Attribute) ([]uint64, *backend.Device, cryptoki.RV) {
	l, err := t.pool.acquire(ctx, a.who)
	if err != nil {
		return nil, nil, away(err)
	}
	handles, rv, clean := l.search(ctx, template)
	l.release(clean)
	if ownFault(rv) {
		rv = cryptoki.CKR_DEVICE_ERROR
	}
	return handles, l.device, rv
}

func (l *lease) search(ctx context.Context, template []cryptoki.Attribute) (handles []uint64, rv cryptoki.RV, clean bool) {
	answer, err := l.do(ctx, &cryptoki.Call{Function: cryptoki.FindObjectsInit, Templates: [2][]cryptoki.Attribute{template}})
	if err != nil {
		return nil, cryptoki.CKR_DEVICE_ERROR, false
	}
	if answer.RV != cryptoki.CKR_OK {
		return nil, answer.RV, !ownFault(answer.RV)
	}
	for len(handles) < maxFound {
		answer, err := l.do(ctx, &cryptoki.Call{Function: cryptoki.FindObjects, Room: cryptoki.Room{Size: foundAtOnce}})
		if err != nil {
			return nil, cryptoki.CKR_DEVICE_ERROR, false
		}
		if answer.RV != cryptoki.CKR_OK {
			return nil, answer.RV, false
		}
		handles = append(handles, answer.List...)
		if len(answer.List) == 0 {
			break
		}
	}
	answer, err = l.do(ctx, &cryptoki.Call{Function: cryptoki.FindObjectsFinal})
	return handles, cryptoki.CKR_OK, err == nil && answer.RV == cryptoki.CKR_OK
}

func (s *session) findNext(call *cryptoki.Call) *cryptoki.Answer {
	if !s.search {
		return cryptoki.Refuse(cryptoki.CKR_OPERATION_NOT_INITIALIZED)
	}
	if call.Room.Null {
		return cryptoki.Refuse(cryptoki.CKR_ARGUMENTS_BAD)
	}
	n := min(int(call.Room.Size), len(s.found))
	next := s.found[:n:n]
	s.found = s.found[n:]
	return &cryptoki.Answer{List: next, Size: uint32(n)}
}

func (s *session) findFinal() *cryptoki.Answer {
	if !s.search {
		return cryptoki.Refuse(cryptoki.CKR_OPERATION_NOT_INITIALIZED)
	}
	s.found, s.search = nil, false
	return cryptoki.Refuse(cryptoki.CKR_OK)
}
