package proxytest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

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
