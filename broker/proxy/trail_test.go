package proxy

import (
	"slices"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// TestTrail: a call is on record with every operation and object that grants decide on,
// and what is nobody's business or was not done is not.
func TestTrail(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	for _, name := range []string{"a", "b"} {
		h.device.Put(proxytest.Key(name, "1")...)
	}
	u := h.user(1)
	s := u.session()
	a, b := u.one(s, "a"), u.one(s, "b")
	h.recorded()
	digest := &cryptoki.Call{Function: cryptoki.DigestInit, Numbers: [4]uint64{s}, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256}}
	template := func(f cryptoki.Function, object uint64, template ...cryptoki.Attribute) *cryptoki.Call {
		return &cryptoki.Call{Function: f, Numbers: [4]uint64{s, object}, Templates: [2][]cryptoki.Attribute{template}}
	}
	mechanism := func(call *cryptoki.Call) *cryptoki.Call {
		call.Mechanism, call.Room.Size = &cryptoki.Mechanism{Type: cryptoki.CKM_AES_KEY_GEN}, 64
		return call
	}
	for _, tt := range []struct {
		calls []*cryptoki.Call
		want  []string
	}{
		{[]*cryptoki.Call{template(cryptoki.GetAttributeValue, a, cryptoki.Attribute{Type: cryptoki.CKA_LABEL, Length: 9})}, nil},
		{[]*cryptoki.Call{template(cryptoki.GetAttributeValue, a, cryptoki.Attribute{Type: cryptoki.CKA_VALUE, Length: 64})}, []string{"pkcs11.export done a"}},
		{[]*cryptoki.Call{signInit(s, a)}, nil},
		{[]*cryptoki.Call{sign(s, "x")}, []string{"pkcs11.sign done a"}},
		{[]*cryptoki.Call{signInit(s, b), update(s), update(s)}, []string{"pkcs11.sign done b"}},
		{[]*cryptoki.Call{{Function: cryptoki.SignFinal, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: 64}}}, nil},
		{[]*cryptoki.Call{digest, {Function: cryptoki.DigestKey, Numbers: [4]uint64{s, a}}}, []string{"pkcs11.digest done", "pkcs11.digest-key done a"}},
		{[]*cryptoki.Call{{Function: cryptoki.DigestKey, Numbers: [4]uint64{s, b}}}, []string{"pkcs11.digest-key done b"}},
		{[]*cryptoki.Call{mechanism(&cryptoki.Call{Function: cryptoki.WrapKey, Numbers: [4]uint64{s, a, b}})}, []string{"pkcs11.wrap done a", "pkcs11.export done b"}},
		{[]*cryptoki.Call{mechanism(template(cryptoki.UnwrapKey, a, onToken(proxytest.Key("c", "3"))...))}, []string{"pkcs11.unwrap done a", "pkcs11.create done c"}},
		{[]*cryptoki.Call{mechanism(template(cryptoki.DeriveKey, a, onToken(proxytest.Key("d", "4"))...))}, []string{"pkcs11.derive done a", "pkcs11.generate done d"}},
		{[]*cryptoki.Call{mechanism(template(cryptoki.DeriveKey, a, proxytest.Key("temporary", "5")...))}, []string{"pkcs11.derive done a"}},
		{[]*cryptoki.Call{template(cryptoki.CopyObject, a, label("e"))}, []string{"pkcs11.copy done a", "pkcs11.create done e"}},
		{[]*cryptoki.Call{template(cryptoki.SetAttributeValue, b, cryptoki.BoolAttribute(cryptoki.CKA_SIGN, true))}, []string{"pkcs11.modify done b"}},
		{[]*cryptoki.Call{template(cryptoki.SetAttributeValue, b, label("f"))}, []string{"pkcs11.modify done b", "pkcs11.modify done f"}},
		{[]*cryptoki.Call{template(cryptoki.DestroyObject, b)}, []string{"pkcs11.destroy done f"}},
		{[]*cryptoki.Call{template(cryptoki.CreateObject, 0, proxytest.Key("own", "9")...)}, []string{"pkcs11.create done own"}},
	} {
		for _, call := range tt.calls {
			u.want(cryptoki.CKR_OK, call)
		}
		if got := h.recorded(); !slices.Equal(got, tt.want) {
			t.Errorf("%v: recorded %q, want %q", tt.calls[0].Function, got, tt.want)
		}
	}
}

// TestDenied: only what the policy refuses is recorded as denied, not what a token does.
func TestDenied(t *testing.T) {
	mine := grant(1, "*")
	mine.Operations = []authz.ObjectOperation{authz.ObjectSign, authz.ObjectWrap, authz.ObjectExport}
	h := newHouse(t, mine)
	h.device.Put(proxytest.Key("k", "1")...)
	u := h.user(1)
	s := u.session()
	k := u.one(s, "k")
	wrap := &cryptoki.Call{Function: cryptoki.WrapKey, Numbers: [4]uint64{s, k, k}, Mechanism: &cryptoki.Mechanism{}, Room: cryptoki.Room{Size: 99}}
	h.device.Wrapping = cryptoki.CKR_KEY_UNEXTRACTABLE
	u.want(cryptoki.CKR_KEY_UNEXTRACTABLE, wrap)
	u.want(cryptoki.CKR_ACTION_PROHIBITED, &cryptoki.Call{Function: cryptoki.GenerateRandom, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: 8}})
	want := []string{"pkcs11.wrap failed k", "pkcs11.export failed k", "pkcs11.random denied"}
	if got := h.recorded(); !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	if e := h.records[0]; e.Reason != "CKR_KEY_UNEXTRACTABLE" || e.Details[audit.DetailObjectID] != "31" {
		t.Errorf("recorded %+v", e)
	}
}
