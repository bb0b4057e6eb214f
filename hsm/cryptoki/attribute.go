package cryptoki

import "encoding/binary"

// Attribute is CK_ATTRIBUTE.
type Attribute struct {
	Type uint64 // CKA_
	// Length is ulValueLen in bytes, [Unavailable] for what cannot be had. It is the
	// length of Value where there is one.
	Length uint64
	// Value is what pValue pointed to, with numbers as they are in memory, see
	// [Ulong]. It is nil when pValue was NULL.
	Value []byte
	// Nested takes the place of Value for attributes that are templates themselves.
	Nested []Attribute
}

// IsTemplate reports whether an attribute's value is an array of attributes.
func IsTemplate(attribute uint64) bool {
	return attribute == CKA_WRAP_TEMPLATE || attribute == CKA_UNWRAP_TEMPLATE || attribute == CKA_DERIVE_TEMPLATE
}

// UlongSize is the size of CK_ULONG on the 64-bit machines that this runs on.
const UlongSize = 8

// AttributeSize is the size of CK_ATTRIBUTE there, in which the length of an array of
// attributes is counted.
const AttributeSize = 24

// BytesAttribute makes an attribute out of bytes.
func BytesAttribute(attribute uint64, value []byte) Attribute {
	return Attribute{Type: attribute, Length: uint64(len(value)), Value: value}
}

// BoolAttribute makes an attribute of type CK_BBOOL.
func BoolAttribute(attribute uint64, value bool) Attribute {
	b := byte(0)
	if value {
		b = 1
	}
	return BytesAttribute(attribute, []byte{b})
}

// UlongAttribute makes an attribute of type CK_ULONG.
func UlongAttribute(attribute, value uint64) Attribute {
	return BytesAttribute(attribute, Ulong(value))
}

// Ulong is a CK_ULONG as it is in memory.
func Ulong(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }

// Ulong reads a value of type CK_ULONG.
func (a *Attribute) Ulong() (v uint64, ok bool) {
	if len(a.Value) != UlongSize {
		return 0, false
	}
	return binary.NativeEndian.Uint64(a.Value), true
}

// Bool reads a value of type CK_BBOOL.
func (a *Attribute) Bool() (v, ok bool) {
	if len(a.Value) != 1 {
		return false, false
	}
	return a.Value[0] != 0, true
}

// Find returns the attribute of a type in a template, nil if it is not there.
func Find(template []Attribute, attribute uint64) *Attribute {
	for i := range template {
		if template[i].Type == attribute {
			return &template[i]
		}
	}
	return nil
}
