package proxy

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// house is a proxy with one token.
type house struct {
	*Proxy
	t      *testing.T
	device *proxytest.Device

	mu         sync.Mutex
	policy     *authz.Policy
	records    []audit.Event
	told       int // records
	unrecorded error
}

const token1 = "luna"

func newHouse(t *testing.T, grants ...authz.ObjectGrant) *house {
	h := &house{t: t, device: proxytest.New(t)}
	h.allow(grants...)
	h.Proxy = New(Config{
		Tokens: []Token{{token1, h.device}},
		Reserved: func(label string, id []byte) bool {
			return strings.HasPrefix(label, "kmsbroker/") || string(id) == "material"
		},
		Limits: Limits{SessionWait: 5 * time.Second, OperationIdle: time.Minute, MaxSessions: 100},
		Now:    time.Now, Log: slog.New(slog.DiscardHandler),
	})
	return h
}

// grant lets a user do everything with objects of these labels.
func grant(uid uint32, labels ...string) authz.ObjectGrant {
	return authz.ObjectGrant{Tokens: []string{"*"}, Labels: labels, Operations: authz.ObjectOperations(), UIDs: []uint32{uid}}
}

func (h *house) allow(grants ...authz.ObjectGrant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.policy = authz.NewPolicy(nil, grants...)
}

func (h *house) record(e audit.Event) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unrecorded == nil {
		h.records = append(h.records, e)
	}
	return h.unrecorded
}

// trail is what was recorded, in words.
func (h *house) trail() (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.records {
		all = append(all, strings.TrimSpace(e.Action+" "+string(e.Outcome)+" "+e.Details[audit.DetailLabel]))
	}
	return all
}

// recorded is what was recorded since it was last asked for.
func (h *house) recorded() []string {
	all := h.trail()
	fresh := all[h.told:]
	h.told = len(all)
	return fresh
}

// user is a client of the proxy.
type user struct {
	*Application
	t *testing.T
	h *house
}

func (h *house) user(uid uint32) *user {
	u := &user{t: h.t, h: h, Application: h.Open(Client{
		Caller: authz.Caller{UID: uid},
		Policy: func() *authz.Policy { h.mu.Lock(); defer h.mu.Unlock(); return h.policy },
		Ready:  func() error { h.mu.Lock(); defer h.mu.Unlock(); return h.unrecorded },
		Record: h.record,
	})}
	u.must(cryptoki.Initialize)
	return u
}

func (u *user) call(f cryptoki.Function, numbers ...uint64) *cryptoki.Answer {
	c := &cryptoki.Call{Function: f, Room: cryptoki.Room{Size: 64}}
	copy(c.Numbers[:], numbers)
	return u.Do(u.t.Context(), c)
}

func (u *user) must(f cryptoki.Function, numbers ...uint64) *cryptoki.Answer {
	u.t.Helper()
	a := u.call(f, numbers...)
	if a.RV != cryptoki.CKR_OK {
		u.t.Fatalf("%v: %v", f, a.RV)
	}
	return a
}

// want makes a call that has to be answered so.
func (u *user) want(rv cryptoki.RV, call *cryptoki.Call) *cryptoki.Answer {
	u.t.Helper()
	a := u.Do(u.t.Context(), call)
	if a.RV != rv {
		u.t.Errorf("%v: %v, want %v", call.Function, a.RV, rv)
	}
	return a
}

// session opens one, logged in.
func (u *user) session() uint64 {
	u.t.Helper()
	s := u.must(cryptoki.OpenSession, 1, cryptoki.CKF_SERIAL_SESSION|cryptoki.CKF_RW_SESSION).Numbers[0]
	if rv := u.call(cryptoki.Login, s, cryptoki.CKU_USER).RV; rv != cryptoki.CKR_OK && rv != cryptoki.CKR_USER_ALREADY_LOGGED_IN {
		u.t.Fatal(rv)
	}
	return s
}

func (u *user) find(s uint64, template ...cryptoki.Attribute) []uint64 {
	u.t.Helper()
	u.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.FindObjectsInit, Numbers: [4]uint64{s}, Templates: [2][]cryptoki.Attribute{template}})
	found := u.must(cryptoki.FindObjects, s).List
	u.must(cryptoki.FindObjectsFinal, s)
	return found
}

func label(text string) cryptoki.Attribute {
	return cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte(text))
}

func (u *user) one(s uint64, name string) uint64 {
	u.t.Helper()
	found := u.find(s, label(name))
	if len(found) != 1 {
		u.t.Fatalf("%d objects are called %q", len(found), name)
	}
	return found[0]
}

// signInit has a parameter, so the device is asked each time.
func signInit(s, key uint64) *cryptoki.Call {
	call := usualSignInit(s, key)
	call.Mechanism.Parameter = cryptoki.Bytes{}
	return call
}

// usualSignInit is one whose answer is remembered.
func usualSignInit(s, key uint64) *cryptoki.Call {
	return &cryptoki.Call{Function: cryptoki.SignInit, Numbers: [4]uint64{s, key}, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_HMAC}}
}

func sign(s uint64, data string) *cryptoki.Call {
	return &cryptoki.Call{Function: cryptoki.Sign, Numbers: [4]uint64{s}, Data: [2][]byte{[]byte(data)}, Room: cryptoki.Room{Size: 64}}
}

// signs signs with a key and looks at the signature.
func (u *user) signs(s, key uint64, name, data string) {
	u.t.Helper()
	u.want(cryptoki.CKR_OK, signInit(s, key))
	u.signed(s, name, data)
}

func (u *user) signed(s uint64, name, data string) {
	u.t.Helper()
	if a := u.want(cryptoki.CKR_OK, sign(s, data)); !bytes.Equal(a.Data, proxytest.Signature(name, data)) {
		u.t.Errorf("the signature is not that of %s over %s", name, data)
	}
}

func label1(u *user, s, object uint64) (string, cryptoki.RV) {
	a := u.Do(u.t.Context(), &cryptoki.Call{Function: cryptoki.GetAttributeValue, Numbers: [4]uint64{s, object},
		Templates: [2][]cryptoki.Attribute{{{Type: cryptoki.CKA_LABEL, Length: 64}}}})
	if a.RV != cryptoki.CKR_OK {
		return "", a.RV
	}
	return string(a.Attributes[0].Value), a.RV
}
