package proxy

import (
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

func only(uid uint32, label string, operations ...authz.ObjectOperation) authz.ObjectGrant {
	return authz.ObjectGrant{Tokens: []string{"*"}, Labels: []string{label}, Operations: operations, UIDs: []uint32{uid}}
}

// TestUnsound: what a library would follow into memory, or understand in another way,
// does not get there.
func TestUnsound(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Put(proxytest.Key("k", "1")...)
	u := h.user(1)
	s := u.session()
	k := u.one(s, "k")
	bytes24 := cryptoki.Bytes(make([]byte, 24))
	template := func(v ...cryptoki.Attribute) *cryptoki.Call {
		return &cryptoki.Call{Function: cryptoki.CreateObject, Numbers: [4]uint64{s}, Templates: [2][]cryptoki.Attribute{append(proxytest.Key("n", "1"), v...)}}
	}
	nested := func(v cryptoki.Attribute) cryptoki.Attribute {
		return cryptoki.Attribute{Type: cryptoki.CKA_WRAP_TEMPLATE, Length: cryptoki.AttributeSize, Nested: []cryptoki.Attribute{v}}
	}
	mechanism := func(f cryptoki.Function, m *cryptoki.Mechanism) *cryptoki.Call {
		return &cryptoki.Call{Function: f, Numbers: [4]uint64{s, k, k}, Mechanism: m, Room: cryptoki.Room{Size: 64}}
	}
	asked := func() (n int) {
		for _, f := range []cryptoki.Function{cryptoki.CreateObject, cryptoki.FindObjectsInit, cryptoki.DeriveKey, cryptoki.EncryptInit, cryptoki.WrapKey} {
			n += h.device.Count(f)
		}
		return n
	}
	before := asked()
	for _, tt := range []struct {
		rv   cryptoki.RV
		call *cryptoki.Call
	}{
		{cryptoki.CKR_MECHANISM_PARAM_INVALID, mechanism(cryptoki.DeriveKey, &cryptoki.Mechanism{Type: cryptoki.CKM_AES_CBC_ENCRYPT_DATA, Parameter: bytes24})},     // a pointer
		{cryptoki.CKR_MECHANISM_PARAM_INVALID, mechanism(cryptoki.DeriveKey, &cryptoki.Mechanism{Type: cryptoki.CKM_CONCATENATE_BASE_AND_KEY, Parameter: bytes24})}, // a handle
		{cryptoki.CKR_MECHANISM_PARAM_INVALID, mechanism(cryptoki.EncryptInit, &cryptoki.Mechanism{Type: 0x80000001, Parameter: bytes24})},                          // a vendor's
		{cryptoki.CKR_MECHANISM_PARAM_INVALID, mechanism(cryptoki.WrapKey, &cryptoki.Mechanism{Type: cryptoki.CKM_RSA_AES_KEY_WRAP, Parameter: bytes24})},
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, template(cryptoki.Attribute{Type: cryptoki.CKA_SUBJECT, Length: 9})}, // NULL
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, template(cryptoki.Attribute{Type: cryptoki.CKA_SUBJECT, Length: cryptoki.Unavailable})},
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, template(nested(cryptoki.Attribute{Type: cryptoki.CKA_SUBJECT, Length: 9}))},
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, template(cryptoki.Attribute{Type: cryptoki.CKA_WRAP_TEMPLATE, Length: 100, Nested: []cryptoki.Attribute{}})},
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, template(cryptoki.BytesAttribute(cryptoki.CKA_TOKEN, []byte{1, 0, 0, 0, 0, 0, 0, 0}))},
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, template(cryptoki.BytesAttribute(cryptoki.CKA_TOKEN, []byte{2}))},
		{cryptoki.CKR_TEMPLATE_INCONSISTENT, template(label("another"))},
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, &cryptoki.Call{Function: cryptoki.FindObjectsInit, Numbers: [4]uint64{s}, Templates: [2][]cryptoki.Attribute{{{Type: cryptoki.CKA_LABEL, Length: 9}}}}},
	} {
		u.want(tt.rv, tt.call)
	}
	if n := asked(); n != before {
		t.Errorf("the device was asked %d times", n-before)
	}
	u.want(cryptoki.CKR_OK, template(label("n"))) // the same, twice
	for _, m := range []*cryptoki.Mechanism{
		{Type: cryptoki.CKM_AES_CBC, Parameter: cryptoki.Bytes("0123456789abcdef")}, {Type: 0x80000001}, {Type: cryptoki.CKM_AES_ECB, Parameter: cryptoki.Bytes{}},
		{Type: cryptoki.CKM_AES_GCM, Parameter: &cryptoki.GCM{IV: []byte("twelve bytes")}},
	} {
		u.want(cryptoki.CKR_OK, mechanism(cryptoki.EncryptInit, m)) // says the device
	}
}

// TestCopies: a copy that is a session object can do what the original may be used for,
// and no more.
func TestCopies(t *testing.T) {
	h := newHouse(t, only(1, "k", authz.ObjectCopy, authz.ObjectSign))
	h.device.Put(proxytest.Key("k", "1")...)
	h.device.Put(proxytest.Key("free", "2")...)
	u := h.user(1)
	s := u.session()
	copied := func(of uint64, v ...cryptoki.Attribute) uint64 {
		t.Helper()
		return u.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.CopyObject, Numbers: [4]uint64{s, of}, Templates: [2][]cryptoki.Attribute{append(v, cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, false))}}).Numbers[0]
	}
	secret := func(of uint64, rv cryptoki.RV) {
		t.Helper()
		u.want(rv, &cryptoki.Call{Function: cryptoki.GetAttributeValue, Numbers: [4]uint64{s, of}, Templates: [2][]cryptoki.Attribute{{{Type: cryptoki.CKA_VALUE, Length: 64}}}})
	}
	wrap := func(of uint64) *cryptoki.Call {
		return &cryptoki.Call{Function: cryptoki.WrapKey, Numbers: [4]uint64{s, of, of}, Mechanism: &cryptoki.Mechanism{}, Room: cryptoki.Room{Size: 64}}
	}
	k := u.one(s, "k")
	first := copied(k, label("free"))
	for _, c := range []uint64{first, copied(first)} {
		u.signs(s, c, "free", "x")
		secret(c, cryptoki.CKR_ATTRIBUTE_SENSITIVE)
		u.want(cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED, wrap(c))
	}
	h.allow(only(1, "k", authz.ObjectCopy))
	u.want(cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED, signInit(s, first))
	h.allow(only(1, "k", authz.ObjectCopy, authz.ObjectExport, authz.ObjectWrap))
	secret(first, cryptoki.CKR_OK)
	u.want(cryptoki.CKR_OK, wrap(first))
}

// TestTemplatesOfKeys: a key that is made with another has no other name or place than
// the policy decided on, whatever template that other has.
func TestTemplatesOfKeys(t *testing.T) {
	h := newHouse(t, grant(1, "web-*"))
	with := func(name string, v ...cryptoki.Attribute) {
		h.device.Put(append(proxytest.Key(name, "1"), cryptoki.Attribute{Type: cryptoki.CKA_UNWRAP_TEMPLATE, Length: uint64(len(v)) * cryptoki.AttributeSize, Nested: v})...)
	}
	with("web-token", cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, true), label("mail"))
	with("web-label", label("mail"))
	with("web-mine", label("web-9"))
	u := h.user(1)
	s := u.session()
	unwrap := func(rv cryptoki.RV, by string, v ...cryptoki.Attribute) {
		t.Helper()
		u.want(rv, &cryptoki.Call{Function: cryptoki.UnwrapKey, Numbers: [4]uint64{s, u.one(s, by)}, Mechanism: &cryptoki.Mechanism{}, Templates: [2][]cryptoki.Attribute{v}})
	}
	lasts := cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, true)
	h.allow(grant(1, "web-*"), only(1, "", authz.ObjectCreate)) // of objects without a label
	unwrap(cryptoki.CKR_TEMPLATE_INCONSISTENT, "web-token")
	unwrap(cryptoki.CKR_TEMPLATE_INCONSISTENT, "web-label", lasts)
	unwrap(cryptoki.CKR_OK, "web-label") // a session object may be called anything
	unwrap(cryptoki.CKR_OK, "web-mine", lasts)
	if n := h.device.Count(cryptoki.DestroyObject); n != 1 {
		t.Errorf("%d keys were destroyed again; one can be prevented, and the other not", n)
	}
	if got := h.device.Labels(); len(got) != 4 || got[0] != "web-9" {
		t.Errorf("the device has %q", got)
	}
}

// TestSecretsAreNotGuessed: a search does not tell who may not read the secret of a key
// that a guess of it was right.
func TestSecretsAreNotGuessed(t *testing.T) {
	h := newHouse(t, only(1, "k", authz.ObjectSign), grant(2, "*"))
	h.device.Put(proxytest.Key("k", "1")...)
	guess := cryptoki.BytesAttribute(cryptoki.CKA_VALUE, []byte("secret of k"))
	signer, all := h.user(1), h.user(2)
	if found := signer.find(signer.session(), guess); len(found) != 0 {
		t.Error("the guess is confirmed")
	}
	if found := all.find(all.session(), guess); len(found) != 1 {
		t.Error("who may read it cannot search for it")
	}
}

// TestKeeper: a client cannot end the session that has the session objects of all, an
// object that went with it is no other's, and without objects there is none.
func TestKeeper(t *testing.T) {
	h := newHouse(t, grant(1, "*"), grant(2, "*"))
	h.device.Reuses = true
	h.device.Replace()
	u, hostile := h.user(1), h.user(2)
	s, bad := u.session(), hostile.session()
	create := func(s uint64, name string) *cryptoki.Call {
		return &cryptoki.Call{Function: cryptoki.CreateObject, Numbers: [4]uint64{s}, Templates: [2][]cryptoki.Attribute{proxytest.Key(name, "1")}}
	}
	own := u.want(cryptoki.CKR_OK, create(s, "own")).Numbers[0]
	lost := false
	h.device.Answers = func(call *cryptoki.Call) *cryptoki.Answer {
		switch {
		case call.Function == cryptoki.CreateObject && string(cryptoki.Find(call.Templates[0], cryptoki.CKA_LABEL).Value) == "evil":
			return cryptoki.Refuse(cryptoki.CKR_USER_NOT_LOGGED_IN)
		case call.Function == cryptoki.GetSessionInfo && lost:
			return cryptoki.Refuse(cryptoki.CKR_SESSION_HANDLE_INVALID)
		}
		return nil
	}
	hostile.want(cryptoki.CKR_DEVICE_ERROR, create(bad, "evil"))
	u.signs(s, own, "own", "x")
	lost = true
	hostile.want(cryptoki.CKR_DEVICE_ERROR, create(bad, "evil"))
	lost = false
	h.device.ReuseHandles()
	other := hostile.want(cryptoki.CKR_OK, create(bad, "other")).Numbers[0]
	u.want(cryptoki.CKR_OBJECT_HANDLE_INVALID, signInit(s, own))
	u.Close(t.Context())
	hostile.signs(bad, other, "other", "x")
	if n := h.Status()[0].Lent(); n != 1 {
		t.Errorf("%d sessions are lent", n)
	}
	hostile.must(cryptoki.DestroyObject, bad, other)
	h.empty()
	hostile.Close(t.Context())
}

// TestNamesThatChangeMeanwhile: what was read of an object before a change is not
// remembered after it.
func TestNamesThatChangeMeanwhile(t *testing.T) {
	c := newObjects(time.Now)
	_, mark := c.lookUp(nil, 7)
	c.forget(7)
	c.remember(&object{handle: 7, read: time.Now()}, mark)
	if o, _ := c.lookUp(nil, 7); o != nil {
		t.Error("the old name is believed")
	}
	_, mark = c.lookUp(nil, 7)
	c.remember(&object{handle: 7, read: time.Now()}, mark)
	if o, _ := c.lookUp(nil, 7); o == nil {
		t.Error("nothing is remembered")
	}
}
