package proxy

import (
	"context"

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
	found := []uint64{}
	for _, h := range handles {
		if mine, ok := a.names[place{s.token, h}]; ok && a.entries[mine].owner != nil && a.entries[mine].object.device == device {
			if a.seen(a.entries[mine]) != nil {
				found = append(found, mine)
			}
			continue
		}
		o, rv := s.token.describe(ctx, a.who, device, h)
		if rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
		if o != nil && a.visible(s.token, o, false) {
			found = append(found, a.enter(s.token, o, nil))
		}
	}
	s.found, s.search = found, true
	return cryptoki.Refuse(cryptoki.CKR_OK)
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
