// Package proxytest is a token in memory for tests of the PKCS#11 proxy and of its door.
package proxytest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// Device is a small token in memory that is as strict as a real one: handles are per
// process, an operation stays with its session, a session object with the session that
// made it. Its signatures tell the key and the data.
type Device struct {
	t testing.TB

	mu       sync.Mutex
	process  *process
	stored   []*thing // token objects, which survive a process
	Most     int
	Away     bool
	opened   int // sessions ever
	calls    map[cryptoki.Function]int
	Blocking chan struct{} // unless nil, C_Sign waits for it
	Wrapping cryptoki.RV   // what C_WrapKey ends with

	Admits       int  // sessions, whatever it says; 0: what it says
	Reuses       bool // the same handles in each process, for other objects
	ReplaceAfter int  // so many more questions for the device; 0: never
	// Answers, unless nil, answers some calls instead.
	Answers func(*cryptoki.Call) *cryptoki.Answer
}

type process struct {
	device  *Device
	current *backend.Device
	gone    chan struct{}
	handles map[uint64]*thing
	last    uint64
	open    int
}

type thing struct {
	attributes []cryptoki.Attribute
	maker      *openSession // of a session object
}

func (o *thing) label() string {
	if a := cryptoki.Find(o.attributes, cryptoki.CKA_LABEL); a != nil {
		return string(a.Value)
	}
	return ""
}

// New makes a Device that is there, with no objects.
func New(t testing.TB) *Device {
	d := &Device{t: t, Most: 4, calls: map[cryptoki.Function]int{}}
	d.Replace()
	return d
}

// Replace is what the supervisor does when the plugin has crashed.
func (d *Device) Replace() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replaced()
}

func (d *Device) replaced() {
	if d.process != nil {
		close(d.process.gone)
	}
	p := &process{device: d, gone: make(chan struct{}), handles: map[uint64]*thing{}, last: uint64(1000 * (d.opened + 1))}
	if d.Reuses {
		p.last = 0
	}
	p.current = &backend.Device{Device: p, Gone: p.gone, CallTimeout: time.Minute, Hung: func() {}, Suspect: func() {}}
	for _, o := range slices.Backward(d.stored) { // so that handles differ between processes
		p.last++
		p.handles[p.last] = o
	}
	d.process = p
}

// Device implements Backend.
func (d *Device) Device(context.Context) (*backend.Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Away {
		return nil, hsm.Errorf(hsm.TokenGone, "the device is away")
	}
	current := d.process.current
	if d.ReplaceAfter > 0 {
		if d.ReplaceAfter--; d.ReplaceAfter == 0 {
			d.replaced()
		}
	}
	return current, nil
}

// Count is how many calls of a function were made.
func (d *Device) Count(f cryptoki.Function) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls[f]
}

// Objects is how many there are, of which process ever.
func (d *Device) Objects() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.process.handles)
}

// Sessions is how many are open.
func (d *Device) Sessions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.process.open
}

// Put stores an object, as an administrator would.
func (d *Device) Put(attributes ...cryptoki.Attribute) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := &thing{attributes: append(attributes, cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, true))}
	d.stored = append(d.stored, o)
	d.process.last++
	d.process.handles[d.process.last] = o
}

// Lose destroys all objects, as an administrator would.
func (d *Device) Lose() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stored = nil
	clear(d.process.handles)
}

// Key is the template of a secret key.
func Key(label, id string) []cryptoki.Attribute {
	return []cryptoki.Attribute{
		cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY),
		cryptoki.UlongAttribute(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET),
		cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte(label)),
		cryptoki.BytesAttribute(cryptoki.CKA_ID, []byte(id)),
		cryptoki.BoolAttribute(cryptoki.CKA_PRIVATE, true),
		cryptoki.BytesAttribute(cryptoki.CKA_VALUE, []byte("secret of "+label)),
	}
}

// MaxSessions implements cryptoki.Device.
func (p *process) MaxSessions() int { return p.device.Most }

// OpenSession implements cryptoki.Device.
func (p *process) OpenSession(context.Context) (cryptoki.Session, error) {
	p.device.mu.Lock()
	defer p.device.mu.Unlock()
	if p.device.Admits > 0 && p.open >= p.device.Admits {
		return nil, cryptoki.CKR_SESSION_COUNT
	}
	if p.open >= p.device.Most {
		p.device.t.Errorf("%d sessions are open, and one more was asked for", p.open)
		return nil, cryptoki.CKR_SESSION_COUNT
	}
	p.open++
	p.device.opened++
	return &openSession{process: p}, nil
}

// LeaveSignature has a session that was lent come back with a signature that is active,
// by a key of these attributes.
func LeaveSignature(s cryptoki.Session, attributes ...cryptoki.Attribute) {
	s.(*openSession).key = &thing{attributes: attributes} //nolint:forcetypeassert // no other has this device
}

// Labels are those of the objects that are stored, in order.
func (d *Device) Labels() (all []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.stored {
		all = append(all, o.label())
	}
	slices.Sort(all)
	return all
}

// Lock keeps calls out while fields are changed.
func (d *Device) Lock() { d.mu.Lock() }

// Unlock is the opposite of Lock.
func (d *Device) Unlock() { d.mu.Unlock() }

// ReuseHandles gives new objects the handles that objects before had.
func (d *Device) ReuseHandles() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process.last = 0
}
