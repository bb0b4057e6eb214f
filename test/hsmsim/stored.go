package hsmsim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	p11 "github.com/miekg/pkcs11"
)

// Object is an object that a partition keeps.
type Object struct {
	Class uint // CKO_
	ID    []byte
	Label string
}

// Stored returns every token object of the partition, of whatever class. It asks
// SoftHSM past the simulator, so that it neither meets the device's troubles nor
// believes what it tests. It must not be called while this process itself uses a
// device.
func (s *Sim) Stored() []Object {
	s.t.Helper()
	s.t.Setenv("SOFTHSM2_CONF", s.softhsm.ConfPath)
	module := p11.New(s.softhsm.Library)
	if module == nil {
		s.t.Fatalf("%s does not load", s.softhsm.Library)
	}
	defer module.Destroy()
	if err := module.Initialize(); err != nil {
		s.t.Fatalf("C_Initialize: %v", err)
	}
	objects, err := s.stored(module)
	if err := errors.Join(err, module.Finalize()); err != nil {
		s.t.Fatalf("look at the objects of the token: %v", err)
	}
	return objects
}

func (s *Sim) stored(module *p11.Ctx) ([]Object, error) {
	slot, err := s.softhsmSlot(module)
	if err != nil {
		return nil, err
	}
	session, err := module.OpenSession(slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, err
	}
	if err := module.Login(session, p11.CKU_USER, s.PIN); err != nil {
		return nil, err
	}
	if err := module.FindObjectsInit(session, nil); err != nil {
		return nil, err
	}
	var objects []Object
	for {
		const batch = 64
		found, _, err := module.FindObjects(session, batch)
		if err != nil || len(found) == 0 {
			return objects, errors.Join(err, module.FindObjectsFinal(session))
		}
		for _, handle := range found {
			object, err := readObject(module, session, handle)
			if err != nil {
				return nil, err
			}
			objects = append(objects, object)
		}
	}
}

func (s *Sim) softhsmSlot(module *p11.Ctx) (uint, error) {
	slots, err := module.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, slot := range slots {
		if info, err := module.GetTokenInfo(slot); err == nil && info.SerialNumber == s.softhsm.Serial {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("no token has the serial %s", s.softhsm.Serial)
}

func readObject(module *p11.Ctx, session p11.SessionHandle, handle p11.ObjectHandle) (Object, error) {
	attributes, err := module.GetAttributeValue(session, handle, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, nil), p11.NewAttribute(p11.CKA_ID, nil), p11.NewAttribute(p11.CKA_LABEL, nil),
	})
	if err != nil {
		return Object{}, err
	}
	var object Object
	for _, attribute := range attributes {
		switch attribute.Type {
		case p11.CKA_CLASS:
			object.Class = uint(attribute.Value[0]) // little-endian, and all classes are small
		case p11.CKA_ID:
			object.ID = attribute.Value
		case p11.CKA_LABEL:
			object.Label = string(attribute.Value)
		}
	}
	return object, nil
}

// Multiply makes n of the only object that the partition keeps, for reading. They
// differ in nothing but their handles, and processes that begin later see them.
func (s *Sim) Multiply(n int) {
	s.t.Helper()
	objects, err := filepath.Glob(filepath.Join(filepath.Dir(s.softhsm.ConfPath), "tokens", "*", "*-*.object"))
	if err != nil || len(objects) != 1 {
		s.t.Fatalf("the objects are %v, %v; there should be one", objects, err)
	}
	for i := range n - 1 {
		path := filepath.Join(filepath.Dir(objects[0]), fmt.Sprintf("00000000-0000-0000-0000-%012d.object", i))
		if err := os.Link(objects[0], path); err != nil {
			s.t.Fatal(err)
		}
	}
}
