package proxy

import (
	"bytes"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// unsound is the return value for a call that must not reach a library: a hostile client
// has no pointers, but it could have the library follow some of its own making, which
// would cost all clients the plugin or show them its memory. It also refuses what a
// library could understand in another way than it is understood here.
func unsound(call *cryptoki.Call) cryptoki.RV {
	if call.Mechanism != nil && !call.Mechanism.Sound() {
		return cryptoki.CKR_MECHANISM_PARAM_INVALID
	}
	if call.Function == cryptoki.GetAttributeValue {
		return cryptoki.CKR_OK // lengths without values are what it is about
	}
	for _, template := range call.Templates {
		if rv := unsoundTemplate(template); rv != cryptoki.CKR_OK {
			return rv
		}
	}
	return cryptoki.CKR_OK
}

func unsoundTemplate(template []cryptoki.Attribute) cryptoki.RV {
	for i := range template {
		v := &template[i]
		switch v.Type {
		case cryptoki.CKA_TOKEN, cryptoki.CKA_PRIVATE, cryptoki.CKA_ALWAYS_AUTHENTICATE:
			if len(v.Value) != 1 || v.Value[0] > 1 {
				return cryptoki.CKR_ATTRIBUTE_VALUE_INVALID
			}
		}
		switch {
		case v.Nested != nil:
			if v.Length != uint64(len(v.Nested))*cryptoki.AttributeSize {
				return cryptoki.CKR_ATTRIBUTE_VALUE_INVALID
			}
			if rv := unsoundTemplate(v.Nested); rv != cryptoki.CKR_OK {
				return rv
			}
		case v.Length != uint64(len(v.Value)):
			return cryptoki.CKR_ATTRIBUTE_VALUE_INVALID // such as NULL with a length
		}
		// Of an attribute that is there twice, one library takes the first and another
		// the last.
		if first := cryptoki.Find(template, v.Type); first != v && (v.Nested != nil || !bytes.Equal(first.Value, v.Value)) {
			return cryptoki.CKR_TEMPLATE_INCONSISTENT
		}
	}
	return cryptoki.CKR_OK
}
