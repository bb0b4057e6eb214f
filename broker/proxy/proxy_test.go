package proxy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// TestInvisible: what a client has no grant for is not there for it, in searches, in
// counts and behind guessed handles.
func TestInvisible(t *testing.T) {
	h := newHouse(t, grant(1, "web-*"), grant(2, "mail"))
	h.device.Put(proxytest.Key("web-a", "1")...)
	h.device.Put(proxytest.Key("mail", "2")...)
	h.device.Put(proxytest.Key("web-b", "3")...)
	h.device.Put(proxytest.Key("kmsbroker/pay", "4")...)
	h.device.Put(proxytest.Key("web-c", "material")...)
	h.device.Put(append(proxytest.Key("web-d", "5"), cryptoki.BoolAttribute(cryptoki.CKA_ALWAYS_AUTHENTICATE, true))...)
	web, mail, nobody := h.user(1), h.user(2), h.user(3)
	s := web.session()
	if found := web.find(s); len(found) != 2 {
		t.Errorf("%d objects were found, not 2", len(found))
	}
	if found := web.find(s, label("mail")); len(found) != 0 {
		t.Error("another's object was found")
	}
	m := mail.session()
	own := mail.one(m, "mail")
	for guess := range uint64(3000) {
		name, rv := label1(mail, m, guess)
		if guess == own != (rv == cryptoki.CKR_OK) || guess != own && rv != cryptoki.CKR_OBJECT_HANDLE_INVALID {
			t.Fatalf("handle %d is %q, %v", guess, name, rv)
		}
		if guess != own {
			mail.want(cryptoki.CKR_OBJECT_HANDLE_INVALID, signInit(m, guess))
		}
	}
	if slots := nobody.must(cryptoki.GetSlotList).List; len(slots) != 0 {
		t.Errorf("who has no grant has slots %v", slots)
	}
	nobody.want(cryptoki.CKR_SLOT_ID_INVALID, &cryptoki.Call{Function: cryptoki.OpenSession, Numbers: [4]uint64{1, cryptoki.CKF_SERIAL_SESSION}})

	h.allow(grant(2, "mail")) // a reload
	if _, rv := label1(web, s, web.last); rv != cryptoki.CKR_OBJECT_HANDLE_INVALID {
		t.Errorf("after the grant was taken away: %v", rv)
	}
}

// TestLogin is PKCS#11's idea of it, which has nothing to do with who may do what.
func TestLogin(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Put(proxytest.Key("k", "1")...)
	u := h.user(1)
	open := func(flags uint64) uint64 {
		return u.must(cryptoki.OpenSession, 1, cryptoki.CKF_SERIAL_SESSION|flags).Numbers[0]
	}
	ro, rw := open(0), open(cryptoki.CKF_RW_SESSION)
	state := func(want1, want2 uint64) {
		t.Helper()
		if got := [2]uint64{u.must(cryptoki.GetSessionInfo, ro).Numbers[1], u.must(cryptoki.GetSessionInfo, rw).Numbers[1]}; got != [2]uint64{want1, want2} {
			t.Errorf("states %v, want %v", got, [2]uint64{want1, want2})
		}
	}
	state(cryptoki.CKS_RO_PUBLIC_SESSION, cryptoki.CKS_RW_PUBLIC_SESSION)
	if found := u.find(ro); len(found) != 0 {
		t.Error("a private object is seen without a login")
	}
	u.want(cryptoki.CKR_USER_NOT_LOGGED_IN, &cryptoki.Call{Function: cryptoki.Logout, Numbers: [4]uint64{ro}})
	u.want(cryptoki.CKR_USER_TYPE_INVALID, &cryptoki.Call{Function: cryptoki.Login, Numbers: [4]uint64{ro, cryptoki.CKU_SO}})
	u.must(cryptoki.Login, ro, cryptoki.CKU_USER)
	u.want(cryptoki.CKR_USER_ALREADY_LOGGED_IN, &cryptoki.Call{Function: cryptoki.Login, Numbers: [4]uint64{rw, cryptoki.CKU_USER}})
	state(cryptoki.CKS_RO_USER_FUNCTIONS, cryptoki.CKS_RW_USER_FUNCTIONS)
	k := u.one(rw, "k")
	u.want(cryptoki.CKR_OK, signInit(rw, k))
	u.must(cryptoki.Logout, rw)
	u.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, sign(rw, "x"))
	u.must(cryptoki.Login, ro, cryptoki.CKU_USER)
	u.want(cryptoki.CKR_OBJECT_HANDLE_INVALID, signInit(rw, k))
	u.signs(rw, u.one(rw, "k"), "k", "x")
	u.want(cryptoki.CKR_SESSION_READ_ONLY, &cryptoki.Call{Function: cryptoki.DestroyObject, Numbers: [4]uint64{ro, u.one(ro, "k")}})
	u.must(cryptoki.CloseSession, ro)
	u.must(cryptoki.CloseSession, rw)
	ro, rw = open(0), open(cryptoki.CKF_RW_SESSION)
	state(cryptoki.CKS_RO_PUBLIC_SESSION, cryptoki.CKS_RW_PUBLIC_SESSION)
	u.must(cryptoki.CloseAllSessions, 1)
	u.want(cryptoki.CKR_SESSION_HANDLE_INVALID, &cryptoki.Call{Function: cryptoki.GetSessionInfo, Numbers: [4]uint64{rw}})
	if n := h.device.Count(cryptoki.Login) + h.device.Count(cryptoki.Logout) + h.device.Count(cryptoki.CloseAllSessions); n != 0 {
		t.Errorf("%d calls about logging in reached the device", n)
	}
}

// TestSessionObjects belong to the client that made them, and end with its session.
func TestSessionObjects(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	u, other := h.user(1), h.user(1)
	s, second := u.session(), u.session()
	create := func(s uint64) uint64 {
		return u.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.CreateObject, Numbers: [4]uint64{s}, Templates: [2][]cryptoki.Attribute{proxytest.Key("temp", "1")}}).Numbers[0]
	}
	k := create(s)
	u.signs(second, k, "temp", "x")
	if len(u.find(second, label("temp"))) != 1 || len(other.find(other.session())) != 0 {
		t.Error("a session object is seen by the wrong client")
	}
	kept := create(second)
	u.must(cryptoki.CloseSession, s)
	u.want(cryptoki.CKR_OBJECT_HANDLE_INVALID, signInit(second, k))
	u.signs(second, kept, "temp", "x")
	u.must(cryptoki.DestroyObject, second, kept)
	create(second)
	if n := h.device.Objects(); n != 1 {
		t.Errorf("the device has %d objects", n)
	}
	u.Close(t.Context())
	if n := h.device.Objects(); n != 0 {
		t.Errorf("the device has %d objects of a client who is gone", n)
	}
}

// TestTooManySessionObjects: one user cannot fill the device that others share.
func TestTooManySessionObjects(t *testing.T) {
	h := newHouse(t, grant(1, "*"), grant(2, "*"))
	u, again, other := h.user(1), h.user(1), h.user(2)
	create := func(u *user, s uint64, rv cryptoki.RV) uint64 {
		t.Helper()
		return u.want(rv, &cryptoki.Call{Function: cryptoki.CreateObject, Numbers: [4]uint64{s}, Templates: [2][]cryptoki.Attribute{proxytest.Key("temp", "1")}}).Numbers[0]
	}
	s, second := u.session(), again.session()
	var last uint64
	for range maxObjects {
		last = create(u, s, cryptoki.CKR_OK)
	}
	create(u, s, cryptoki.CKR_DEVICE_MEMORY)
	create(again, second, cryptoki.CKR_DEVICE_MEMORY)
	create(other, other.session(), cryptoki.CKR_OK)
	u.must(cryptoki.DestroyObject, s, last)
	create(again, second, cryptoki.CKR_OK)
	create(u, s, cryptoki.CKR_DEVICE_MEMORY)
	u.Close(t.Context())
	again.Close(t.Context())
	other.Close(t.Context())
	if len(h.objects) != 0 || h.device.Objects() != 0 {
		t.Errorf("counted are %v of nobody, and the device has %d", h.objects, h.device.Objects())
	}
}

func onToken(template []cryptoki.Attribute) []cryptoki.Attribute {
	return append(template, cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, true))
}

// TestNames: what makes or renames an object needs the grant for the new name too, and
// the broker's own names nobody gets.
func TestNames(t *testing.T) {
	mine := grant(1, "web-*")
	mine.Operations = slices.DeleteFunc(authz.ObjectOperations(), func(op authz.ObjectOperation) bool { return op == authz.ObjectExport })
	h := newHouse(t, mine, authz.ObjectGrant{Tokens: []string{"*"}, Labels: []string{"tls"}, Operations: []authz.ObjectOperation{authz.ObjectSign}, UIDs: []uint32{1}})
	h.device.Put(proxytest.Key("web-1", "1")...)
	h.device.Put(proxytest.Key("tls", "2")...)
	u := h.user(1)
	s := u.session()
	web, tls := u.one(s, "web-1"), u.one(s, "tls")
	call := func(f cryptoki.Function, object uint64, template ...cryptoki.Attribute) *cryptoki.Call {
		return &cryptoki.Call{Function: f, Numbers: [4]uint64{s, object}, Mechanism: &cryptoki.Mechanism{}, Templates: [2][]cryptoki.Attribute{template}, Room: cryptoki.Room{Size: 99}}
	}
	id := func(v string) cryptoki.Attribute { return cryptoki.BytesAttribute(cryptoki.CKA_ID, []byte(v)) }
	for _, tt := range []struct {
		rv   cryptoki.RV
		call *cryptoki.Call
	}{
		{cryptoki.CKR_OK, call(cryptoki.CreateObject, 0, onToken(proxytest.Key("web-2", "1"))...)},
		{cryptoki.CKR_ACTION_PROHIBITED, call(cryptoki.CreateObject, 0, onToken(proxytest.Key("mail", "1"))...)},
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, call(cryptoki.CreateObject, 0, onToken(proxytest.Key("kmsbroker/x", "1"))...)},
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, call(cryptoki.CreateObject, 0, onToken(proxytest.Key("web-3", "material"))...)},
		{cryptoki.CKR_OK, call(cryptoki.CreateObject, 0, proxytest.Key("whatever", "1")...)}, // a session object
		{cryptoki.CKR_OK, call(cryptoki.GenerateKey, 0, onToken(proxytest.Key("web-4", "1"))...)},
		{cryptoki.CKR_ACTION_PROHIBITED, call(cryptoki.GenerateKey, 0, onToken(proxytest.Key("mail", "1"))...)},
		{cryptoki.CKR_OK, call(cryptoki.CopyObject, web, label("web-5"))},
		{cryptoki.CKR_ACTION_PROHIBITED, call(cryptoki.CopyObject, web, label("mail"))},
		{cryptoki.CKR_ACTION_PROHIBITED, call(cryptoki.CopyObject, tls, label("web-6"))},
		{cryptoki.CKR_ACTION_PROHIBITED, call(cryptoki.SetAttributeValue, web, label("mail"))},
		{cryptoki.CKR_ATTRIBUTE_VALUE_INVALID, call(cryptoki.SetAttributeValue, web, id("material"))},
		{cryptoki.CKR_OK, call(cryptoki.SetAttributeValue, web, label("web-7"))},
		{cryptoki.CKR_ACTION_PROHIBITED, call(cryptoki.SetAttributeValue, tls, label("web-8"))},
		{cryptoki.CKR_ACTION_PROHIBITED, call(cryptoki.DestroyObject, tls)},
		{cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED, call(cryptoki.UnwrapKey, tls, proxytest.Key("web-9", "1")...)},
		{cryptoki.CKR_ACTION_PROHIBITED, call(cryptoki.UnwrapKey, web, onToken(proxytest.Key("mail", "1"))...)},
		{cryptoki.CKR_OK, call(cryptoki.UnwrapKey, web, proxytest.Key("temporary", "1")...)},
		{cryptoki.CKR_ACTION_PROHIBITED, call(cryptoki.DeriveKey, web, onToken(proxytest.Key("mail", "1"))...)},
		{cryptoki.CKR_KEY_UNEXTRACTABLE, &cryptoki.Call{Function: cryptoki.WrapKey, Numbers: [4]uint64{s, web, tls}, Mechanism: &cryptoki.Mechanism{}, Room: cryptoki.Room{Size: 99}}},
		{cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED, &cryptoki.Call{Function: cryptoki.WrapKey, Numbers: [4]uint64{s, tls, web}, Mechanism: &cryptoki.Mechanism{}, Room: cryptoki.Room{Size: 99}}},
	} {
		u.want(tt.rv, tt.call)
		if t.Failed() {
			t.Fatalf("with %v", tt.call.Templates[0])
		}
	}
	if name, _ := label1(u, s, web); name != "web-7" {
		t.Errorf("it is called %q", name)
	}
	secret := call(cryptoki.GetAttributeValue, tls, cryptoki.Attribute{Type: cryptoki.CKA_VALUE, Length: 64}, cryptoki.Attribute{Type: cryptoki.CKA_LABEL, Length: 64})
	a := u.want(cryptoki.CKR_ATTRIBUTE_SENSITIVE, secret)
	if a.Attributes[0].Length != cryptoki.Unavailable || string(a.Attributes[1].Value) != "tls" {
		t.Errorf("without the right to export: %+v", a.Attributes)
	}
	for _, line := range h.trail() {
		if strings.Contains(line, "done tls") {
			t.Errorf("recorded %q", line)
		}
	}
}

// TestUnrecorded: what cannot be recorded is neither done nor answered.
func TestUnrecorded(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Put(proxytest.Key("k", "1")...)
	u := h.user(1)
	s := u.session()
	k := u.one(s, "k")
	u.want(cryptoki.CKR_OK, signInit(s, k))
	h.unrecorded = errors.New("the disk is full")
	if a := u.want(cryptoki.CKR_DEVICE_ERROR, sign(s, "x")); a.Data != nil {
		t.Error("a signature came without a record")
	}
	signatures := h.device.Count(cryptoki.SignInit)
	u.want(cryptoki.CKR_DEVICE_ERROR, signInit(s, k))
	u.want(cryptoki.CKR_DEVICE_ERROR, &cryptoki.Call{Function: cryptoki.GenerateRandom, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: 9}})
	if h.device.Count(cryptoki.SignInit) != signatures || h.device.Count(cryptoki.GenerateRandom) != 0 {
		t.Error("the device was asked")
	}
	h.unrecorded = nil
	u.signs(s, k, "k", "x")
}

// TestRevoked: what a reload takes away cannot be gone on with either.
func TestRevoked(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Put(proxytest.Key("k", "1")...)
	h.device.Put(proxytest.Key("other", "2")...)
	u := h.user(1)
	s, second := u.session(), u.session()
	u.want(cryptoki.CKR_OK, signInit(s, u.one(s, "k")))
	u.want(cryptoki.CKR_OK, update(s))
	u.want(cryptoki.CKR_OK, signInit(second, u.one(s, "other")))
	h.recorded()
	h.allow(grant(1, "other"))
	u.want(cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED, update(s))
	u.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, update(s))
	u.signed(second, "other", "x")
	if got, want := h.recorded(), []string{"pkcs11.sign denied k", "pkcs11.sign done other"}; !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
}

// TestManySessions: one user cannot have all of them.
func TestManySessions(t *testing.T) {
	h := newHouse(t, grant(1, "*"), grant(2, "*"))
	h.config.Limits.MaxSessions = 3
	a, b := h.user(1), h.user(1)
	a.session()
	a.session()
	b.session()
	b.want(cryptoki.CKR_SESSION_COUNT, &cryptoki.Call{Function: cryptoki.OpenSession, Numbers: [4]uint64{1, cryptoki.CKF_SERIAL_SESSION}})
	h.user(2).session()
	a.Close(t.Context())
	b.session()
}
