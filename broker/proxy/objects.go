package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// fresh is how long it is believed what a device said of an object. Names that are
// changed through the proxy are known at once, those that others change after so long.
const fresh = 5 * time.Second

// object is what decides who may see an object and what for. It is never changed.
type object struct {
	device *backend.Device // that knows it under handle
	handle uint64

	class, keyType uint64
	label          string
	id             []byte
	private        bool // invisible without a login
	onToken        bool // not a session object
	// asksAlways says that each use asks for a PIN again (CKA_ALWAYS_AUTHENTICATE),
	// which there is nobody to give.
	asksAlways bool

	read time.Time
}

func (o *object) authz(t *token) authz.Object {
	return authz.Object{Token: t.name, Label: o.label, ID: o.id}
}

// same reports whether it can be the same object, met again in another process.
func (o *object) same(other *object) bool {
	return o.class == other.class && o.keyType == other.keyType && o.label == other.label &&
		string(o.id) == string(other.id) && o.private == other.private && o.onToken == other.onToken
}

// objects are those of a token that were met lately, by the device's handle.
type objects struct {
	now func() time.Time

	mu     sync.Mutex
	device *backend.Device
	known  map[uint64]*object
	forgot uint64 // so many times
	// accepted are the operations that the device has begun with each key that is known.
	accepted map[uint64]map[manner]uint32
}

func newObjects(now func() time.Time) objects {
	return objects{now: now, known: map[uint64]*object{}, accepted: map[uint64]map[manner]uint32{}}
}

// maxKnown bounds the objects that are remembered.
const maxKnown = 1 << 16

// lookUp returns nil for what is not known, and a mark for remember.
func (c *objects) lookUp(device *backend.Device, handle uint64) (o *object, mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o = c.known[handle]
	if c.device != device || o == nil || c.now().Sub(o.read) > fresh {
		return nil, c.forgot
	}
	return o, c.forgot
}

// remember keeps what was read after the mark, unless something was changed meanwhile:
// perhaps that.
func (c *objects) remember(o *object, mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forgot != mark {
		return
	}
	if c.device != o.device || len(c.known) >= maxKnown {
		c.restart(o.device)
	}
	c.known[o.handle] = o
	delete(c.accepted, o.handle)
}

func (c *objects) restart(device *backend.Device) {
	c.device = device
	clear(c.known)
	clear(c.accepted)
}

func (c *objects) forget(handle uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgot++
	delete(c.known, handle)
	delete(c.accepted, handle)
}

// describe returns what a device says of an object, nil if it is not there.
func (t *token) describe(ctx context.Context, who authz.Identity, device *backend.Device, handle uint64) (*object, cryptoki.RV) {
	o, mark := t.lookUp(device, handle)
	if o != nil {
		return o, cryptoki.CKR_OK
	}
	const room = 256 // for most labels and IDs
	call := &cryptoki.Call{
		Function: cryptoki.GetAttributeValue, Numbers: [4]uint64{0, handle},
		Templates: [2][]cryptoki.Attribute{{
			{Type: cryptoki.CKA_CLASS, Length: cryptoki.UlongSize},
			{Type: cryptoki.CKA_TOKEN, Length: 1},
			{Type: cryptoki.CKA_PRIVATE, Length: 1},
			{Type: cryptoki.CKA_LABEL, Length: room},
			{Type: cryptoki.CKA_ID, Length: room},
			{Type: cryptoki.CKA_KEY_TYPE, Length: cryptoki.UlongSize},
			{Type: cryptoki.CKA_ALWAYS_AUTHENTICATE, Length: 1},
		}},
	}
	answer, _ := t.once(ctx, who, device, call)
	if answer.RV == cryptoki.CKR_BUFFER_TOO_SMALL {
		for i := range call.Templates[0] {
			call.Templates[0][i].Length = maxName
		}
		answer, _ = t.once(ctx, who, device, call)
	}
	switch answer.RV {
	case cryptoki.CKR_OK, cryptoki.CKR_ATTRIBUTE_TYPE_INVALID, cryptoki.CKR_ATTRIBUTE_SENSITIVE:
	case cryptoki.CKR_OBJECT_HANDLE_INVALID, cryptoki.CKR_BUFFER_TOO_SMALL:
		return nil, cryptoki.CKR_OK
	default:
		return nil, answer.RV
	}
	if o = read(answer.Attributes); o == nil {
		return nil, cryptoki.CKR_OK
	}
	o.device, o.handle, o.read = device, handle, t.now()
	t.remember(o, mark)
	return o, cryptoki.CKR_OK
}

// maxName bounds labels and IDs, in bytes. What is longer belongs to nobody.
const maxName = 4096

// read takes an object out of its attributes, nil if they leave in doubt what it is.
func read(attributes []cryptoki.Attribute) *object {
	o := &object{private: true} // unless it says otherwise
	class, ok := ulong(attributes, cryptoki.CKA_CLASS)
	if !ok {
		return nil
	}
	o.class = class
	if o.onToken, ok = boolean(attributes, cryptoki.CKA_TOKEN); !ok {
		return nil
	}
	if private, ok := boolean(attributes, cryptoki.CKA_PRIVATE); ok {
		o.private = private
	}
	o.keyType, _ = ulong(attributes, cryptoki.CKA_KEY_TYPE)
	o.asksAlways, _ = boolean(attributes, cryptoki.CKA_ALWAYS_AUTHENTICATE)
	for _, name := range []struct {
		attribute uint64
		set       func([]byte)
	}{
		{cryptoki.CKA_LABEL, func(v []byte) { o.label = string(v) }},
		{cryptoki.CKA_ID, func(v []byte) { o.id = append([]byte(nil), v...) }},
	} {
		a := cryptoki.Find(attributes, name.attribute)
		switch {
		case a == nil || a.Length == cryptoki.Unavailable:
			// Data and domain parameters have no CKA_ID.
		case uint64(len(a.Value)) != a.Length:
			return nil
		default:
			name.set(a.Value)
		}
	}
	return o
}

func ulong(attributes []cryptoki.Attribute, attribute uint64) (uint64, bool) {
	a := cryptoki.Find(attributes, attribute)
	if a == nil {
		return 0, false
	}
	return a.Ulong()
}

func boolean(attributes []cryptoki.Attribute, attribute uint64) (value, ok bool) {
	a := cryptoki.Find(attributes, attribute)
	if a == nil {
		return false, false
	}
	return a.Bool()
}
