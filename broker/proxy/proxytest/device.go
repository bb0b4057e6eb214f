// Package proxytest is a token in memory for tests of the PKCS#11 proxy and of its door.
package proxytest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
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

// openSession is a session of the device.
type openSession struct {
	process *process
	busy    sync.Mutex
	key     *thing // of the signature that is active
	data    []byte
	found   []uint64
	search  bool
	closed  bool
}

var errBroken = errors.New("the process is gone")

// Do implements cryptoki.Session.
func (s *openSession) Do(_ context.Context, call *cryptoki.Call) (*cryptoki.Answer, error) {
	d := s.process.device
	if !s.busy.TryLock() {
		d.t.Error("two calls at once on one session")
		return nil, errBroken
	}
	defer s.busy.Unlock()
	d.mu.Lock()
	d.calls[call.Function]++
	blocking := d.Blocking
	d.mu.Unlock()
	if blocking != nil && call.Function == cryptoki.Sign {
		<-blocking
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process != s.process {
		return nil, errBroken
	}
	if s.closed {
		d.t.Error("a call on a session that was closed")
	}
	return s.answer(call), nil
}

func (s *openSession) answer(call *cryptoki.Call) *cryptoki.Answer {
	p := s.process
	object := p.handles[call.Numbers[1]]
	if p.device.Answers != nil {
		if a := p.device.Answers(call); a != nil {
			return a
		}
	}
	switch call.Function {
	case cryptoki.GetSessionInfo:
		return &cryptoki.Answer{Numbers: [4]uint64{0, cryptoki.CKS_RW_USER_FUNCTIONS}}
	case cryptoki.GenerateRandom:
		return &cryptoki.Answer{Data: make([]byte, call.Room.Size), Size: call.Room.Size}
	case cryptoki.GetTokenInfo:
		return &cryptoki.Answer{Info: &cryptoki.TokenInfo{Flags: cryptoki.CKF_USER_PIN_COUNT_LOW}}
	case cryptoki.FindObjectsInit:
		if s.search || s.key != nil {
			return cryptoki.Refuse(cryptoki.CKR_OPERATION_ACTIVE)
		}
		s.search, s.found = true, p.matching(call.Templates[0])
		return cryptoki.Refuse(cryptoki.CKR_OK)
	case cryptoki.FindObjects:
		n := min(len(s.found), int(call.Room.Size))
		a := &cryptoki.Answer{List: s.found[:n], Size: uint32(n)}
		s.found = s.found[n:]
		return a
	case cryptoki.FindObjectsFinal:
		s.search = false
		return cryptoki.Refuse(cryptoki.CKR_OK)
	case cryptoki.CreateObject, cryptoki.GenerateKey:
		return s.make(call.Templates[0])
	case cryptoki.GenerateKeyPair:
		public, private := s.make(call.Templates[0]), s.make(call.Templates[1])
		return &cryptoki.Answer{Numbers: [4]uint64{public.Numbers[0], private.Numbers[0]}}
	case cryptoki.Sign, cryptoki.SignUpdate, cryptoki.SignFinal:
		return s.sign(call)
	case cryptoki.DigestInit:
		return cryptoki.Refuse(cryptoki.CKR_OK)
	}
	if call.Function > cryptoki.EncryptInit && call.Function <= cryptoki.DecryptVerifyUpdate && !takesKey(call.Function) {
		return cryptoki.Refuse(cryptoki.CKR_OK)
	}
	if object == nil {
		return cryptoki.Refuse(cryptoki.CKR_OBJECT_HANDLE_INVALID)
	}
	switch call.Function {
	case cryptoki.GetAttributeValue:
		return read1(object, call.Templates[0])
	case cryptoki.CopyObject:
		return s.make(merged(object.attributes, call.Templates[0]))
	case cryptoki.SetAttributeValue:
		object.attributes = merged(object.attributes, call.Templates[0])
		return cryptoki.Refuse(cryptoki.CKR_OK)
	case cryptoki.DestroyObject:
		delete(p.handles, call.Numbers[1])
		p.device.stored = slices.DeleteFunc(p.device.stored, func(o *thing) bool { return o == object })
		return cryptoki.Refuse(cryptoki.CKR_OK)
	case cryptoki.WrapKey:
		if p.device.Wrapping != cryptoki.CKR_OK {
			return cryptoki.Refuse(p.device.Wrapping)
		}
		return &cryptoki.Answer{Data: []byte("wrapped"), Size: 7}
	case cryptoki.DigestKey:
		return cryptoki.Refuse(cryptoki.CKR_OK)
	case cryptoki.UnwrapKey, cryptoki.DeriveKey:
		return s.makeWith(object, call.Templates[0])
	case cryptoki.SignInit:
		if s.key != nil {
			return cryptoki.Refuse(cryptoki.CKR_OPERATION_ACTIVE)
		}
		if call.Mechanism.Type == cryptoki.CKM_MD5 {
			return cryptoki.Refuse(cryptoki.CKR_MECHANISM_INVALID)
		}
		s.key, s.data = object, nil
		return cryptoki.Refuse(cryptoki.CKR_OK)
	}
	if takesKey(call.Function) {
		return cryptoki.Refuse(cryptoki.CKR_OK)
	}
	return cryptoki.Refuse(cryptoki.CKR_FUNCTION_NOT_SUPPORTED)
}

// takesKey reports functions of operations that have a key for a parameter.
func takesKey(f cryptoki.Function) bool {
	switch f {
	case cryptoki.EncryptInit, cryptoki.DecryptInit, cryptoki.DigestKey, cryptoki.SignInit, cryptoki.SignRecoverInit,
		cryptoki.VerifyInit, cryptoki.VerifyRecoverInit:
		return true
	default:
		return false
	}
}

// makeWith makes a key with another, which may have a template for it.
func (s *openSession) makeWith(key *thing, template []cryptoki.Attribute) *cryptoki.Answer {
	if own := cryptoki.Find(key.attributes, cryptoki.CKA_UNWRAP_TEMPLATE); own != nil {
		for _, v := range own.Nested {
			if asked := cryptoki.Find(template, v.Type); asked != nil && string(asked.Value) != string(v.Value) {
				return cryptoki.Refuse(cryptoki.CKR_TEMPLATE_INCONSISTENT)
			}
		}
		template = merged(own.Nested, template)
	}
	return s.make(template)
}

func (s *openSession) make(template []cryptoki.Attribute) *cryptoki.Answer {
	p := s.process
	o := &thing{attributes: slices.Clone(template)}
	for i := range o.attributes {
		o.attributes[i].Value = slices.Clone(o.attributes[i].Value)
	}
	if a := cryptoki.Find(template, cryptoki.CKA_TOKEN); a != nil && a.Value[0] == 1 {
		p.device.stored = append(p.device.stored, o)
	} else {
		o.maker = s
		o.attributes = merged(o.attributes, []cryptoki.Attribute{cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, false)})
	}
	if cryptoki.Find(o.attributes, cryptoki.CKA_CLASS) == nil {
		o.attributes = append(o.attributes, cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY))
	}
	p.last++
	p.handles[p.last] = o
	return &cryptoki.Answer{Numbers: [4]uint64{p.last}}
}

func (s *openSession) sign(call *cryptoki.Call) *cryptoki.Answer {
	if s.key == nil {
		return cryptoki.Refuse(cryptoki.CKR_OPERATION_NOT_INITIALIZED)
	}
	if call.Function == cryptoki.SignUpdate {
		s.data = append(s.data, call.Data[0]...)
		return cryptoki.Refuse(cryptoki.CKR_OK)
	}
	const size = sha256.Size
	switch {
	case call.Room.Null:
		return &cryptoki.Answer{Size: size}
	case call.Room.Size < size:
		return &cryptoki.Answer{RV: cryptoki.CKR_BUFFER_TOO_SMALL, Size: size}
	case string(call.Data[0]) == "refuse":
		return cryptoki.Refuse(cryptoki.CKR_DATA_INVALID) // and the operation goes on, as it must not
	}
	data := append(s.data, call.Data[0]...)
	signature := Signature(s.key.label(), string(data))
	s.key, s.data = nil, nil
	return &cryptoki.Answer{Data: signature, Size: size}
}

// Signature is what the device signs with.
func Signature(label, data string) []byte {
	mac := hmac.New(sha256.New, []byte(label))
	mac.Write([]byte(data))
	return mac.Sum(nil)
}

// Close implements cryptoki.Session.
func (s *openSession) Close() error {
	s.process.device.mu.Lock()
	defer s.process.device.mu.Unlock()
	if s.closed {
		s.process.device.t.Error("a session is closed twice")
	}
	s.closed = true
	s.process.open--
	for handle, o := range s.process.handles {
		if o.maker == s {
			delete(s.process.handles, handle)
		}
	}
	return nil
}

func (p *process) matching(template []cryptoki.Attribute) []uint64 {
	found := []uint64{}
	for handle, o := range p.handles {
		if !slices.ContainsFunc(template, func(want cryptoki.Attribute) bool {
			has := cryptoki.Find(o.attributes, want.Type)
			return has == nil || string(has.Value) != string(want.Value)
		}) {
			found = append(found, handle)
		}
	}
	slices.Sort(found)
	return found
}

func read1(o *thing, wanted []cryptoki.Attribute) *cryptoki.Answer {
	a := &cryptoki.Answer{}
	for _, w := range wanted {
		has := cryptoki.Find(o.attributes, w.Type)
		switch {
		case has == nil:
			a.RV = cryptoki.CKR_ATTRIBUTE_TYPE_INVALID
			a.Attributes = append(a.Attributes, cryptoki.Attribute{Type: w.Type, Length: cryptoki.Unavailable})
		case w.Length < has.Length:
			a.RV = cryptoki.CKR_BUFFER_TOO_SMALL
			a.Attributes = append(a.Attributes, cryptoki.Attribute{Type: w.Type, Length: cryptoki.Unavailable})
		default:
			a.Attributes = append(a.Attributes, *has)
		}
	}
	return a
}

// merged is a template in which another one's attributes come first.
func merged(old, changes []cryptoki.Attribute) []cryptoki.Attribute {
	all := slices.Clone(changes)
	for _, a := range old {
		if cryptoki.Find(changes, a.Type) == nil {
			all = append(all, a)
		}
	}
	return all
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
