package pkcs11

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// find returns the handles of all objects that match the template.
func (s *session) find(template ...*p11.Attribute) (handles []p11.ObjectHandle, err error) {
	s.guard.looking.Lock()
	defer s.guard.looking.Unlock()
	if err := s.FindObjectsInit(s.handle, template); err != nil {
		return nil, deviceError(err, "search the token")
	}
	defer func() {
		if final := s.FindObjectsFinal(s.handle); final != nil && err == nil {
			err = deviceError(final, "end a search of the token")
		}
	}()
	for {
		const batch = 64
		more, _, err := s.FindObjects(s.handle, batch)
		if err != nil {
			return nil, deviceError(err, "search the token")
		}
		if len(more) == 0 {
			return handles, nil
		}
		handles = append(handles, more...)
	}
}

// destroy removes an object, and where that matters while nobody looks at any.
func (s *session) destroy(object p11.ObjectHandle) error {
	s.guard.removing.Lock()
	defer s.guard.removing.Unlock()
	return s.DestroyObject(s.handle, object)
}

// findKey returns the one secret key with this ID.
func (s *session) findKey(id hsm.KeyID) (p11.ObjectHandle, error) {
	found, err := s.find(
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_ID, id.Bytes()),
	)
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if err := s.checkLogin(); err != nil {
			return 0, err
		}
		return 0, hsm.Errorf(hsm.NotFound, "the token has no secret key with id %s", id)
	default:
		return 0, hsm.Errorf(hsm.Corrupt,
			"the token has %d secret keys with id %s: change CKA_ID of all but the right one with the vendor's tool", len(found), id)
	}
}

// attributes reads attributes of an object. One that the object does not have
// or does not show is missing from the result. The device refuses a request as
// a whole for the sake of one attribute, so a refused one is repeated singly.
func (s *session) attributes(object p11.ObjectHandle, types []uint) (map[uint][]byte, error) {
	values, err := s.attributeGroup(object, types)
	if err == nil || !attributeHidden(err) {
		return values, err
	}
	values = make(map[uint][]byte, len(types))
	for _, t := range types {
		one, err := s.attributeGroup(object, []uint{t})
		if err != nil && !attributeHidden(err) {
			return nil, err
		}
		if err == nil {
			values[t] = one[t]
		}
	}
	return values, nil
}

func (s *session) attributeGroup(object p11.ObjectHandle, types []uint) (map[uint][]byte, error) {
	template := make([]*p11.Attribute, len(types))
	for i, t := range types {
		template[i] = p11.NewAttribute(t, nil)
	}
	s.guard.looking.Lock()
	read, err := s.GetAttributeValue(s.handle, object, template)
	s.guard.looking.Unlock()
	if err != nil {
		return nil, deviceError(err, "read the attributes of an object")
	}
	values := make(map[uint][]byte, len(read))
	for _, a := range read {
		values[a.Type] = a.Value
	}
	return values, nil
}

func attributeHidden(err error) bool {
	switch codeIn(err) {
	case codeName(p11.CKR_ATTRIBUTE_SENSITIVE), codeName(p11.CKR_ATTRIBUTE_TYPE_INVALID):
		return true
	default:
		return false
	}
}

// keyAttributes are those that every secret key has, and CKA_VALUE_LEN, which
// fixed-length types lack.
var keyAttributes = []uint{
	p11.CKA_CLASS, p11.CKA_TOKEN, p11.CKA_ID, p11.CKA_LABEL, p11.CKA_KEY_TYPE, p11.CKA_PRIVATE, p11.CKA_SENSITIVE,
	p11.CKA_ALWAYS_SENSITIVE, p11.CKA_EXTRACTABLE, p11.CKA_NEVER_EXTRACTABLE, p11.CKA_LOCAL, p11.CKA_MODIFIABLE,
	p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_WRAP, p11.CKA_UNWRAP, p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_DERIVE,
	p11.CKA_VALUE_LEN,
}

// readKey reads what the token says of a secret key that it keeps.
func (t *Token) readKey(s *session, object p11.ObjectHandle) (*hsm.Key, error) {
	a, err := s.attributes(object, keyAttributes)
	if err != nil {
		return nil, err
	}
	is := func(t uint) bool { return len(a[t]) == 1 && a[t][0] != 0 }
	if class, ok := ulong(a[p11.CKA_CLASS]); !ok || class != p11.CKO_SECRET_KEY || !is(p11.CKA_TOKEN) {
		return nil, errReused()
	}
	key := &hsm.Key{
		ID:               keyID(a[p11.CKA_ID]),
		Label:            printable(a[p11.CKA_LABEL]),
		Type:             keyType(a[p11.CKA_KEY_TYPE]),
		Private:          is(p11.CKA_PRIVATE),
		Sensitive:        is(p11.CKA_SENSITIVE),
		AlwaysSensitive:  is(p11.CKA_ALWAYS_SENSITIVE),
		Extractable:      is(p11.CKA_EXTRACTABLE),
		NeverExtractable: is(p11.CKA_NEVER_EXTRACTABLE),
		Local:            is(p11.CKA_LOCAL),
		Modifiable:       is(p11.CKA_MODIFIABLE),
		Encrypt:          is(p11.CKA_ENCRYPT),
		Decrypt:          is(p11.CKA_DECRYPT),
		Wrap:             is(p11.CKA_WRAP),
		Unwrap:           is(p11.CKA_UNWRAP),
		Sign:             is(p11.CKA_SIGN),
		Verify:           is(p11.CKA_VERIFY),
		Derive:           is(p11.CKA_DERIVE),
	}
	if n, ok := ulong(a[p11.CKA_VALUE_LEN]); ok && n <= maxValueLen {
		key.Bits = int(n) * 8
	}
	key.Vendor, err = t.readVendor(s, object)
	return key, err
}

// errReused is the error of a handle that was a key's when it was found. The key
// is gone, and the device has given its handle to an object that was made since,
// as PKCS#11 lets it; one that does not do so answers with this code.
func errReused() error {
	return &hsm.Error{Reason: hsm.TokenGone, Code: codeName(p11.CKR_OBJECT_HANDLE_INVALID),
		Detail: "the handle of a key is by now that of another object"}
}

// readVendor reads the vendor's attributes of a key; nil when there are none. It
// fails only when the token is in trouble.
func (t *Token) readVendor(s *session, object p11.ObjectHandle) (map[string]string, error) {
	if len(t.vendor) == 0 {
		return nil, nil
	}
	types := make([]uint, len(t.vendor))
	for i, attribute := range t.vendor {
		types[i] = attribute.Type
	}
	a, err := s.attributes(object, types)
	if err != nil {
		if conclusive(err) {
			err = nil
		}
		return nil, err
	}
	var vendor map[string]string
	for _, attribute := range t.vendor {
		if value := a[attribute.Type]; len(value) > 0 && len(value) <= maxVendorValue {
			if vendor == nil {
				vendor = make(map[string]string)
			}
			vendor[attribute.Name] = hex.EncodeToString(value)
		}
	}
	return vendor, nil
}

// maxVendorValue bounds what is shown of a vendor attribute, in bytes.
const maxVendorValue = 64

// maxValueLen bounds CKA_VALUE_LEN in bytes: a generic secret may be long, but
// not this long.
const maxValueLen = 1 << 20

// keyID is empty for an object whose CKA_ID cannot name it.
func keyID(raw []byte) hsm.KeyID {
	id, err := hsm.ParseKeyID(string(hsm.KeyIDFromBytes(raw)))
	if err != nil {
		return ""
	}
	return id
}

func keyType(raw []byte) string {
	n, ok := ulong(raw)
	switch {
	case !ok:
		return ""
	case n == p11.CKK_AES:
		return "AES"
	default:
		return fmt.Sprintf("%#x", n)
	}
}

// printable makes a label that others wrote safe to show.
func printable(raw []byte) string {
	const longest = 255
	raw = raw[:min(len(raw), longest)]
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(string(raw), "?"))
}

// ulong reads a CK_ULONG, which has the size of a C long.
func ulong(raw []byte) (uint64, bool) {
	switch len(raw) {
	case 8:
		return binary.NativeEndian.Uint64(raw), true
	case 4:
		return uint64(binary.NativeEndian.Uint32(raw)), true
	default:
		return 0, false
	}
}
