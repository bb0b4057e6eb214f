package proxy

import (
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// TestStatus: what administrators are told of a token that has fewer sessions than its
// clients want.
func TestStatus(t *testing.T) {
	h := newHouse(t, grant(1, "*"), grant(2, "*"))
	h.device.Most = 2
	h.device.Put(proxytest.Key("k", "1")...)
	told := func(want Status) {
		t.Helper()
		want.Name = token1
		if got := h.Status(); len(got) != 1 || got[0] != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	told(Status{})
	u := h.user(1)
	told(Status{}) // connected, with nothing of a token
	first, second := u.session(), u.session()
	other := h.user(2)
	third := other.session()
	k, o := u.one(first, "k"), other.one(third, "k")
	told(Status{Clients: 2, ClientSessions: 3, Open: 1, Idle: 1, Most: 2})

	u.want(cryptoki.CKR_OK, signInit(first, k))
	u.want(cryptoki.CKR_OK, signInit(second, k))
	told(Status{Clients: 2, ClientSessions: 3, Open: 2, Parked: 2, Most: 2})
	other.want(cryptoki.CKR_OK, signInit(third, o))
	told(Status{Clients: 2, ClientSessions: 3, Open: 2, Parked: 2, Most: 2, Counts: Counts{Resumable: 1}})

	u.want(cryptoki.CKR_OK, update(second))
	other.want(cryptoki.CKR_OK, update(third))
	counts := h.Status()[0].Counts
	pool := h.tokens[0].pool
	pool.limits.SessionWait = 10 * time.Millisecond
	u.want(cryptoki.CKR_DEVICE_MEMORY, &cryptoki.Call{Function: cryptoki.GenerateRandom, Numbers: [4]uint64{first}, Room: cryptoki.Room{Size: 8}})
	counts.Late++
	told(Status{Clients: 2, ClientSessions: 3, Open: 2, Parked: 2, Most: 2, Counts: counts})
	pool.limits.OperationIdle = 0
	u.must(cryptoki.GenerateRandom, first)
	counts.Lost++
	told(Status{Clients: 2, ClientSessions: 3, Open: 2, Parked: 1, Idle: 1, Most: 2, Counts: counts})

	other.must(cryptoki.CloseSession, third)
	u.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.CreateObject, Numbers: [4]uint64{first}, Templates: [2][]cryptoki.Attribute{proxytest.Key("own", "9")}})
	told(Status{Clients: 1, ClientSessions: 2, Open: 2, Idle: 1, Most: 2, Counts: counts})
	if s := h.Status()[0]; s.Lent() != 1 {
		t.Errorf("%d sessions are lent, and session objects live in one", s.Lent())
	}
	h.device.Replace()
	told(Status{Clients: 1, ClientSessions: 2, Counts: counts})
	u.Close(t.Context())
	told(Status{Counts: counts})
}

// TestStatusWaiting: who waits is told while he waits.
func TestStatusWaiting(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Most = 1
	h.device.Put(proxytest.Key("k", "1")...)
	h.device.Blocking = make(chan struct{})
	u, other := h.user(1), h.user(1)
	s, third := u.session(), other.session()
	u.want(cryptoki.CKR_OK, signInit(s, u.one(s, "k")))
	signed, served := make(chan struct{}), make(chan struct{})
	go func() { defer close(signed); u.signed(s, "k", "x") }()
	for h.Status()[0].Lent() == 0 { // until the device has the call
		time.Sleep(time.Millisecond)
	}
	go func() { defer close(served); other.must(cryptoki.GenerateRandom, third) }()
	for h.Status()[0].Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	close(h.device.Blocking)
	<-signed
	<-served
	if got := h.Status()[0]; got.Waiting != 0 || got.Idle != 1 || got.Counts != (Counts{}) {
		t.Errorf("%+v", got)
	}
}
