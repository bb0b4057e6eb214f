package proxy

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// entry is an object that a client has a handle of.
type entry struct {
	token  *token
	object *object // as it was last met

	// Of a session object:
	owner  *session // which it ends with; nil for others
	keeper *lease   // which it is on
	// like is the token object that it is a copy of. What the client may do with a
	// copy is what it may do with the original.
	like *authz.Object
}

// named is the object whose grants say what the client may do with this one, and
// whether they are asked at all: what becomes of a session object of its own is
// nobody's business.
func (e *entry) named() (o authz.Object, asked bool) {
	if e.like != nil {
		return *e.like, true
	}
	return e.object.authz(e.token), e.owner == nil
}

// deed is an operation with the object, for the trail.
func (e *entry) deed(op authz.ObjectOperation) deed {
	o, _ := e.named()
	return deed{op, o}
}

// noHandle is CK_INVALID_HANDLE, which stands for every handle that a client does not
// have: the device answers as it does to any that it does not know.
const noHandle = 0

// enter gives the client a handle for an object, the same as before if it has one.
func (a *Application) enter(fresh entry) uint64 {
	t, o := fresh.token, fresh.object
	at := place{t, o.handle}
	if handle, ok := a.names[at]; ok {
		if e := a.entries[handle]; e.object.device == o.device && e.owner == nil && fresh.owner == nil {
			e.object = o
			return handle
		}
		// Of a process that is no more, or of an object that is none any more.
		delete(a.names, at)
	}
	handle := a.handle()
	a.names[at] = handle
	a.entries[handle] = &fresh
	return handle
}

// remove takes a handle away.
func (a *Application) remove(handle uint64, e *entry) {
	delete(a.entries, handle)
	if e.owner != nil {
		a.proxy.disown(a.who, 1)
	}
	if at := (place{e.token, e.object.handle}); a.names[at] == handle {
		delete(a.names, at)
	}
}

// discard takes a handle away, and destroys the object if it was the session's own.
func (a *Application) discard(ctx context.Context, handle uint64, e *entry) {
	a.remove(handle, e)
	if e.owner != nil {
		e.token.destroy(ctx, e.keeper, e.object.handle)
	}
}

// destroy ends a session object. Of what the device answers nobody is left to hear.
func (t *token) destroy(ctx context.Context, keeper *lease, handle uint64) {
	t.change(ctx, keeper, &cryptoki.Call{Function: cryptoki.DestroyObject, Numbers: [4]uint64{0, handle}})
	t.forget(handle)
}

// resolve finds the object behind a client's handle, as the device knows it now. It is
// nil when the client has none of that handle or must not see it any more.
func (a *Application) resolve(ctx context.Context, s *session, handle uint64) (*entry, cryptoki.RV) {
	e := a.entries[handle]
	if e == nil || e.token != s.token {
		return nil, cryptoki.CKR_OK
	}
	device, err := s.token.pool.backend.Device(ctx)
	if err != nil {
		return nil, away(err)
	}
	if e.object.device != device {
		return a.again(ctx, device, handle, e)
	}
	if e.owner != nil && e.token.keeper.Load() == e.keeper {
		return a.seen(e), cryptoki.CKR_OK // nobody else could have changed it
	}
	if e.owner != nil {
		a.remove(handle, e)
		return nil, cryptoki.CKR_OK
	}
	o, rv := s.token.describe(ctx, a.who, device, e.object.handle)
	switch {
	case rv != cryptoki.CKR_OK:
		return nil, rv
	case o == nil:
		a.remove(handle, e)
		return nil, cryptoki.CKR_OK
	}
	e.object = o
	return a.seen(e), cryptoki.CKR_OK
}

// seen is the entry if the client may see its object.
func (a *Application) seen(e *entry) *entry {
	if !a.visible(e.token, e.object, e.owner != nil) {
		return nil
	}
	return e
}

// visible reports whether the client may see an object, own session objects included.
func (a *Application) visible(t *token, o *object, own bool) bool {
	switch {
	case o.private && !a.loggedIn[t], o.asksAlways, a.reserved(o.label, o.id):
		return false
	case !o.onToken:
		return own
	default:
		return a.rights().Visible(o.authz(t))
	}
}

func (a *Application) reserved(label string, id []byte) bool {
	return a.proxy.config.Reserved(label, id)
}

// again finds a token object in another process of the plugin, by everything that it
// was known by. Session objects are gone with the process. When there are several it
// would be a guess, and the client has to search for itself.
func (a *Application) again(ctx context.Context, device *backend.Device, handle uint64, e *entry) (*entry, cryptoki.RV) {
	if !e.object.onToken {
		a.discard(ctx, handle, e)
		return nil, cryptoki.CKR_OK
	}
	template := []cryptoki.Attribute{
		cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, true),
		cryptoki.UlongAttribute(cryptoki.CKA_CLASS, e.object.class),
		cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte(e.object.label)),
	}
	handles, from, rv := a.search(ctx, e.token, template)
	if rv == cryptoki.CKR_OK && from != device {
		rv = cryptoki.CKR_DEVICE_ERROR // replaced once more
	}
	if rv != cryptoki.CKR_OK {
		return nil, rv
	}
	var found *object
	for _, h := range handles {
		o, rv := e.token.describe(ctx, a.who, device, h)
		if rv != cryptoki.CKR_OK {
			return nil, rv
		}
		if o == nil || !o.same(e.object) {
			continue
		}
		if found != nil {
			found = nil
			break
		}
		found = o
	}
	a.remove(handle, e)
	if found == nil {
		return nil, cryptoki.CKR_OK
	}
	// Another handle may have been given out for it meanwhile; both are good.
	e.object = found
	a.entries[handle] = e
	if _, taken := a.names[place{e.token, found.handle}]; !taken {
		a.names[place{e.token, found.handle}] = handle
	}
	return a.seen(e), cryptoki.CKR_OK
}
