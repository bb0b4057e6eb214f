package rpc

import (
	"encoding/binary"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// kind is how the value of an attribute is encoded. p11-kit goes by the attribute's
// type and takes the length of what is in memory along.
type kind int

const (
	isBytes kind = iota
	isByte
	isUlong
	isUlongs
	isTemplate
)

func kindOf(attribute uint64) kind {
	switch attribute {
	case cryptoki.CKA_TOKEN, cryptoki.CKA_PRIVATE, cryptoki.CKA_TRUSTED, cryptoki.CKA_SENSITIVE,
		cryptoki.CKA_ENCRYPT, cryptoki.CKA_DECRYPT, cryptoki.CKA_WRAP, cryptoki.CKA_UNWRAP,
		cryptoki.CKA_SIGN, cryptoki.CKA_SIGN_RECOVER, cryptoki.CKA_VERIFY, cryptoki.CKA_VERIFY_RECOVER,
		cryptoki.CKA_DERIVE, cryptoki.CKA_EXTRACTABLE, cryptoki.CKA_LOCAL, cryptoki.CKA_NEVER_EXTRACTABLE,
		cryptoki.CKA_ALWAYS_SENSITIVE, cryptoki.CKA_MODIFIABLE, cryptoki.CKA_COPYABLE,
		cryptoki.CKA_SECONDARY_AUTH, cryptoki.CKA_ALWAYS_AUTHENTICATE, cryptoki.CKA_WRAP_WITH_TRUSTED,
		cryptoki.CKA_RESET_ON_INIT, cryptoki.CKA_HAS_RESET, cryptoki.CKA_COLOR:
		return isByte
	case cryptoki.CKA_CLASS, cryptoki.CKA_CERTIFICATE_TYPE, cryptoki.CKA_CERTIFICATE_CATEGORY,
		cryptoki.CKA_JAVA_MIDP_SECURITY_DOMAIN, cryptoki.CKA_KEY_TYPE, cryptoki.CKA_MODULUS_BITS,
		cryptoki.CKA_PRIME_BITS, cryptoki.CKA_SUB_PRIME_BITS, cryptoki.CKA_VALUE_BITS, cryptoki.CKA_VALUE_LEN,
		cryptoki.CKA_KEY_GEN_MECHANISM, cryptoki.CKA_AUTH_PIN_FLAGS, cryptoki.CKA_HW_FEATURE_TYPE,
		cryptoki.CKA_PIXEL_X, cryptoki.CKA_PIXEL_Y, cryptoki.CKA_RESOLUTION, cryptoki.CKA_CHAR_ROWS,
		cryptoki.CKA_CHAR_COLUMNS, cryptoki.CKA_BITS_PER_PIXEL, cryptoki.CKA_MECHANISM_TYPE:
		return isUlong
	case cryptoki.CKA_ALLOWED_MECHANISMS:
		return isUlongs
	case cryptoki.CKA_WRAP_TEMPLATE, cryptoki.CKA_UNWRAP_TEMPLATE, cryptoki.CKA_DERIVE_TEMPLATE:
		return isTemplate
	default:
		return isBytes // dates too
	}
}

// template writes an array of attributes with their values.
func (w *writer) template(attributes []cryptoki.Attribute) {
	w.uint32(uint32(len(attributes)))
	for i := range attributes {
		w.attribute(&attributes[i])
	}
}

func (w *writer) attribute(a *cryptoki.Attribute) {
	if a.Type > 0xffffffff {
		w.fail("attribute %#x has no place in the protocol", a.Type)
		return
	}
	w.uint32(uint32(a.Type))
	if a.Length == cryptoki.Unavailable {
		w.byte(0)
		return
	}
	if a.Length > MaxBody {
		w.fail("attribute %#x has %d bytes, more than %d", a.Type, a.Length, MaxBody)
		return
	}
	w.byte(1)
	w.uint32(uint32(a.Length))
	w.value(a)
}

// value writes what an attribute has. Where it has a length alone, something of its
// kind has to follow all the same.
func (w *writer) value(a *cryptoki.Attribute) {
	switch kindOf(a.Type) {
	case isByte:
		if len(a.Value) > 1 {
			w.fail("attribute %#x has %d bytes instead of one", a.Type, len(a.Value))
			return
		}
		b := byte(0)
		if len(a.Value) == 1 {
			b = a.Value[0]
		}
		w.byte(b)
	case isUlong:
		if len(a.Value) > cryptoki.UlongSize {
			w.fail("attribute %#x has %d bytes, more than a CK_ULONG", a.Type, len(a.Value))
			return
		}
		var memory [cryptoki.UlongSize]byte
		copy(memory[:], a.Value)
		w.uint64(binary.NativeEndian.Uint64(memory[:]))
	case isUlongs:
		w.uint32(uint32(len(a.Value) / cryptoki.UlongSize))
		for v := a.Value; len(v) >= cryptoki.UlongSize; v = v[cryptoki.UlongSize:] {
			w.uint64(binary.NativeEndian.Uint64(v))
		}
	case isTemplate:
		w.template(a.Nested)
	default:
		w.bytes(a.Value)
	}
}

// template reads an array of attributes with their values.
func (r *reader) template(depth int) []cryptoki.Attribute {
	attributes := r.attributesAt(depth, 5)
	for i := range attributes {
		r.attribute(&attributes[i], depth)
	}
	return attributes
}

// attributesAt makes room for an array of attributes, each of least bytes.
func (r *reader) attributesAt(depth, least int) []cryptoki.Attribute {
	n := r.uint32()
	r.attributes += int(min(n, maxAttributes+1))
	switch {
	case r.err != nil:
		return nil
	case depth > maxDepth:
		r.fail("attributes nest too deep")
		return nil
	case r.attributes > maxAttributes:
		r.fail("it has too many attributes")
		return nil
	case int(n)*least > len(r.rest):
		r.fail("it is too short")
		return nil
	}
	return make([]cryptoki.Attribute, n)
}

func (r *reader) attribute(a *cryptoki.Attribute, depth int) {
	a.Type = uint64(r.uint32())
	if r.byte() == 0 {
		a.Length = cryptoki.Unavailable
		return
	}
	a.Length = uint64(r.uint32())
	if a.Length > MaxBody {
		r.fail("an attribute is longer than a message may be")
		return
	}
	switch kindOf(a.Type) {
	case isByte:
		a.Value = []byte{r.byte()}
	case isUlong:
		a.Value = cryptoki.Ulong(r.uint64())
	case isUlongs:
		a.Value = r.ulongValues()
	case isTemplate:
		if a.Nested = r.template(depth + 1); len(a.Nested) == 0 && a.Length > 0 {
			a.Nested = nil // a length that comes alone
		}
		if r.err == nil && uint64(len(a.Nested))*cryptoki.AttributeSize > a.Length {
			r.fail("a nested template is longer than its length")
		}
		return
	default:
		a.Value = r.bytes()
	}
	r.fit(a)
}

// ulongValues reads an array of CK_ULONG as it is in memory.
func (r *reader) ulongValues() []byte {
	n := r.uint32()
	if r.err != nil || int64(n)*cryptoki.UlongSize > int64(len(r.rest)) {
		r.fail("it is too short")
		return nil
	}
	value := make([]byte, 0, int(n)*cryptoki.UlongSize)
	for range n {
		value = binary.NativeEndian.AppendUint64(value, r.uint64())
	}
	return value
}

// fit makes a value as long as it is said to be in memory. What p11-kit sends for a
// value of no length, and for a length without a value, is no value.
func (r *reader) fit(a *cryptoki.Attribute) {
	switch n := uint64(len(a.Value)); {
	case r.err != nil || n == a.Length:
	case a.Length == 0, n == 0:
		a.Value = nil
	case n > a.Length:
		// A number of fewer bytes than a CK_ULONG, in whose place p11-kit fails.
		r.fail("an attribute is longer than its length")
	default:
		a.Value = append(a.Value[:n:n], make([]byte, a.Length-n)...)
	}
}

// wanted writes which attributes are asked for, and the room for each.
func (w *writer) wanted(attributes []cryptoki.Attribute) {
	w.uint32(uint32(len(attributes)))
	for i := range attributes {
		a := &attributes[i]
		w.uint32(uint32(a.Type))
		w.uint32(uint32(min(a.Length, MaxBody)))
		if a.Length > 0 && cryptoki.IsTemplate(a.Type) {
			w.wanted(a.Nested)
		}
	}
}

// roomForm is what a client sends of the room for an attribute that is a template, behind
// its length. Nothing in the protocol tells which.
type roomForm int

const (
	roomThere  roomForm = iota // what is in it, if there is room: from 0.25.6 on
	roomAlways                 // what is in it, nothing if there is no room: 0.25.4 and 0.25.5
	roomNever                  // nothing: before 0.25.4
	roomForms
)

// wanted reads which attributes are asked for.
func (r *reader) wanted(depth int, form roomForm) []cryptoki.Attribute {
	attributes := r.attributesAt(depth, 8)
	for i := range attributes {
		a := &attributes[i]
		a.Type, a.Length = uint64(r.uint32()), uint64(r.uint32())
		if r.room += a.Length; r.room > MaxBody {
			r.fail("it asks for more than an answer may have")
		}
		switch {
		case !cryptoki.IsTemplate(a.Type), form == roomThere && a.Length == 0:
			continue
		case form == roomNever:
			a.Length = 0 // so they get the length alone
			continue
		}
		a.Nested = r.wanted(depth+1, form)
		if uint64(len(a.Nested))*cryptoki.AttributeSize > a.Length {
			r.fail("a nested template is longer than its length")
		}
		if a.Length == 0 {
			a.Nested = nil
		}
	}
	return attributes
}
