package proxy

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// TestOperations: lengths, too little room, parts, mistakes, and a session of the device
// that is left clean whatever a client did.
func TestOperations(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Most = 1
	h.device.Put(proxytest.Key("k", "1")...)
	u := h.user(1)
	s := u.session()
	k := u.one(s, "k")
	u.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, sign(s, "x"))
	u.want(cryptoki.CKR_OK, signInit(s, k))
	u.want(cryptoki.CKR_OPERATION_ACTIVE, signInit(s, k))
	length := sign(s, "x")
	length.Room = cryptoki.Room{Null: true}
	if a := u.want(cryptoki.CKR_OK, length); a.Size != 32 || a.Data != nil {
		t.Errorf("a length is answered with %+v", a)
	}
	small := sign(s, "x")
	small.Room.Size = 31
	u.want(cryptoki.CKR_BUFFER_TOO_SMALL, small)
	u.signed(s, "k", "x")
	u.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, sign(s, "x"))

	u.want(cryptoki.CKR_OK, signInit(s, k))
	for _, part := range []string{"a", "b"} {
		u.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.SignUpdate, Numbers: [4]uint64{s}, Data: [2][]byte{[]byte(part)}})
	}
	a := u.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.SignFinal, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: 64}})
	if !bytes.Equal(a.Data, proxytest.Signature("k", "ab")) {
		t.Error("a signature in parts is wrong")
	}
	bad := signInit(s, k)
	bad.Mechanism = &cryptoki.Mechanism{Type: cryptoki.CKM_MD5}
	u.want(cryptoki.CKR_MECHANISM_INVALID, bad)
	u.want(cryptoki.CKR_OK, signInit(s, k))
	u.want(cryptoki.CKR_DATA_INVALID, sign(s, "refuse"))
	u.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, sign(s, "x"))
	u.signs(s, k, "k", "y")
	u.must(cryptoki.CloseSession, s)
	if n := h.device.Sessions(); n > 1 {
		t.Errorf("the device has %d sessions", n)
	}
	want := []string{"pkcs11.sign done k", "pkcs11.sign done k", "pkcs11.sign failed k", "pkcs11.sign done k"}
	if got := h.trail(); !slices.Equal(got, want) {
		t.Errorf("recorded %q", got)
	}
}

// TestIdleClients: more clients than the device has sessions, each between C_SignInit and
// C_Sign, and each gets its own signature.
func TestIdleClients(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Put(proxytest.Key("k", "1")...)
	h.config.Limits.MaxSessions = 1000
	var users []*user
	var sessions []uint64
	for range 40 {
		u := h.user(1)
		s := u.session()
		u.want(cryptoki.CKR_OK, signInit(s, u.one(s, "k")))
		users, sessions = append(users, u), append(sessions, s)
	}
	for i, u := range users {
		u.signed(sessions[i], "k", strings.Repeat("x", i))
	}
	if n := h.device.Sessions(); n > h.device.Most {
		t.Errorf("the device has %d sessions", n)
	}
	for _, u := range users {
		u.Close(t.Context())
	}
	if len(h.sessions) != 0 {
		t.Errorf("sessions are counted for clients who are gone: %v", h.sessions)
	}
}

func update(s uint64) *cryptoki.Call {
	return &cryptoki.Call{Function: cryptoki.SignUpdate, Numbers: [4]uint64{s}, Data: [2][]byte{[]byte("part")}}
}

// TestBusyClients: operations that were fed data keep their sessions for a time, others
// wait in a queue with an end, and one that is left alone too long is lost.
func TestBusyClients(t *testing.T) {
	h := newHouse(t, grant(1, "*"), grant(2, "*"))
	h.device.Put(proxytest.Key("k", "1")...)
	var users []*user
	var sessions []uint64
	for range h.device.Most {
		u := h.user(1)
		s := u.session()
		u.want(cryptoki.CKR_OK, signInit(s, u.one(s, "k")))
		users, sessions = append(users, u), append(sessions, s)
	}
	for i, u := range users {
		u.want(cryptoki.CKR_OK, update(sessions[i]))
	}
	pool := h.tokens[0].pool
	pool.limits.SessionWait = 10 * time.Millisecond
	other := h.user(2)
	s := other.must(cryptoki.OpenSession, 1, cryptoki.CKF_SERIAL_SESSION).Numbers[0]
	other.want(cryptoki.CKR_DEVICE_MEMORY, &cryptoki.Call{Function: cryptoki.GenerateRandom, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: 8}})
	pool.limits.OperationIdle = 0
	other.must(cryptoki.GenerateRandom, s)
	lost := 0
	for i, u := range users {
		if rv := u.Do(t.Context(), update(sessions[i])).RV; rv == cryptoki.CKR_DEVICE_ERROR {
			lost++
			u.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, update(sessions[i]))
		} else if rv != cryptoki.CKR_OK {
			t.Errorf("an operation in parts: %v", rv)
		}
	}
	if lost != 1 {
		t.Errorf("%d operations were lost for one session", lost)
	}
}

// TestFairness: a session goes to the user who has the fewest.
func TestFairness(t *testing.T) {
	h := newHouse(t, grant(1, "*"), grant(2, "*"))
	pool := h.tokens[0].pool
	var held []*lease
	for range h.device.Most {
		l, err := pool.acquire(t.Context(), authz.Identity{UID: 1})
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
	}
	served := make(chan uint32, 3)
	var waiting sync.WaitGroup
	for i, uid := range []uint32{1, 1, 2} {
		waiting.Go(func() {
			l, err := pool.acquire(t.Context(), authz.Identity{UID: uid})
			if err != nil {
				t.Error(err)
				return
			}
			served <- uid
			l.release(true)
		})
		for { // until it waits
			pool.mu.Lock()
			n := len(pool.waiting)
			pool.mu.Unlock()
			if n == i+1 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	held[0].release(true)
	if first := <-served; first != 2 {
		t.Errorf("user %d was served first", first)
	}
	waiting.Wait()
	for _, l := range held[1:] {
		l.release(true)
	}
}

// TestReplacedPlugin: a crash costs what was under way and session objects, nothing else.
func TestReplacedPlugin(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Put(proxytest.Key("a", "1")...)
	h.device.Put(proxytest.Key("b", "2")...)
	h.device.Put(proxytest.Key("twin", "3")...)
	h.device.Put(proxytest.Key("twin", "3")...)
	u := h.user(1)
	s, parts := u.session(), u.session()
	a, b, twin := u.one(s, "a"), u.one(s, "b"), u.find(s, label("twin"))[0]
	own := u.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.CreateObject, Numbers: [4]uint64{s}, Templates: [2][]cryptoki.Attribute{proxytest.Key("own", "9")}}).Numbers[0]
	u.want(cryptoki.CKR_OK, signInit(parts, b))
	u.want(cryptoki.CKR_OK, update(parts))
	u.want(cryptoki.CKR_OK, signInit(s, a))
	h.device.Replace()
	u.signed(s, "a", "after the crash")
	u.want(cryptoki.CKR_DEVICE_ERROR, update(parts))
	u.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, update(parts))
	u.signs(parts, b, "b", "x")
	u.want(cryptoki.CKR_OBJECT_HANDLE_INVALID, signInit(s, own))
	u.want(cryptoki.CKR_OBJECT_HANDLE_INVALID, signInit(s, twin))
	if again := u.one(s, "a"); again != a {
		t.Errorf("the object has the handle %d now, not %d", again, a)
	}
	if state := u.must(cryptoki.GetSessionInfo, s).Numbers[1]; state != cryptoki.CKS_RW_USER_FUNCTIONS {
		t.Errorf("the session is in state %d", state)
	}

	h.device.Away = true
	u.want(cryptoki.CKR_DEVICE_REMOVED, signInit(s, a))
	if slots := u.Do(t.Context(), &cryptoki.Call{Function: cryptoki.GetSlotList, Flag: true, Room: cryptoki.Room{Size: 9}}); len(slots.List) != 0 {
		t.Error("a token that is away is in a slot")
	}
	u.want(cryptoki.CKR_TOKEN_NOT_PRESENT, &cryptoki.Call{Function: cryptoki.OpenSession, Numbers: [4]uint64{1, cryptoki.CKF_SERIAL_SESSION}})
	h.device.Away = false
	u.signs(s, a, "a", "and back")
}

// TestPanic: what it interrupts costs the one who called, and nobody a session.
func TestPanic(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Most = 2
	h.device.Put(proxytest.Key("k", "1")...)
	u := h.user(1)
	s := u.session()
	k := u.one(s, "k")
	random := &cryptoki.Call{Function: cryptoki.GenerateRandom, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: 8}}
	create := &cryptoki.Call{Function: cryptoki.CreateObject, Numbers: [4]uint64{s}, Templates: [2][]cryptoki.Attribute{proxytest.Key("temp", "2")}}
	u.want(cryptoki.CKR_OK, create) // so that a session keeps it
	for _, call := range []*cryptoki.Call{random, sign(s, "x"), create} {
		if call.Function == cryptoki.Sign {
			u.want(cryptoki.CKR_OK, signInit(s, k))
		}
		h.device.Answers = func(asked *cryptoki.Call) *cryptoki.Answer {
			if asked.Function == call.Function {
				panic("of the device")
			}
			return nil
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v: no panic", call.Function)
				}
			}()
			u.Do(t.Context(), call)
		}()
		h.device.Answers = nil
		if call.Function == cryptoki.Sign {
			u.signed(s, "k", "x") // it had no data, so it begins again
		}
		u.signs(s, k, "k", "y")
		u.want(cryptoki.CKR_OK, random)
		u.want(cryptoki.CKR_OK, create)
	}
	u.Close(t.Context())
	if status := h.Status()[0]; status.Lent() != 0 || h.device.Objects() != 1 {
		t.Errorf("%d sessions are lent, and the device has %d objects", status.Lent(), h.device.Objects())
	}
}
