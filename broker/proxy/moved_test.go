package proxy

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// TestReplacedAtAnyMoment: the plugin is replaced in the middle of a call, and the handles
// of the new process are those of other objects. A call fails or does what it should.
func TestReplacedAtAnyMoment(t *testing.T) {
	type client struct {
		*user
		s, a, own uint64
	}
	object := func(f cryptoki.Function, template ...cryptoki.Attribute) func(*client) *cryptoki.Call {
		return func(c *client) *cryptoki.Call {
			return &cryptoki.Call{Function: f, Numbers: [4]uint64{c.s, c.a, c.a}, Mechanism: &cryptoki.Mechanism{}, Templates: [2][]cryptoki.Attribute{template}, Room: cryptoki.Room{Size: 64}}
		}
	}
	for name, call := range map[string]func(*client) *cryptoki.Call{
		"sign":    func(c *client) *cryptoki.Call { return signInit(c.s, c.a) },
		"destroy": object(cryptoki.DestroyObject),
		"rename":  object(cryptoki.SetAttributeValue, label("renamed")),
		"read":    object(cryptoki.GetAttributeValue, cryptoki.Attribute{Type: cryptoki.CKA_LABEL, Length: 64}),
		"copy":    object(cryptoki.CopyObject, cryptoki.BytesAttribute(cryptoki.CKA_ID, []byte("9"))),
		"unwrap":  object(cryptoki.UnwrapKey, label("new")),
		"destroy own": func(c *client) *cryptoki.Call {
			return &cryptoki.Call{Function: cryptoki.DestroyObject, Numbers: [4]uint64{c.s, c.own}}
		},
		"end": func(c *client) *cryptoki.Call {
			return &cryptoki.Call{Function: cryptoki.CloseSession, Numbers: [4]uint64{c.s}}
		},
		"find": func(c *client) *cryptoki.Call {
			return &cryptoki.Call{Function: cryptoki.FindObjectsInit, Numbers: [4]uint64{c.s}, Templates: [2][]cryptoki.Attribute{{label("a")}}}
		},
	} {
		for after := 1; after <= 6; after++ {
			h := newHouse(t, grant(1, "*"))
			h.device.Reuses = true
			h.device.Replace()
			for _, name := range []string{"b", "a", "d", "c"} {
				h.device.Put(proxytest.Key(name, "1")...)
			}
			c := &client{user: h.user(1)}
			c.s = c.session()
			c.a = c.one(c.s, "a")
			c.own = c.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.CreateObject, Numbers: [4]uint64{c.s}, Templates: [2][]cryptoki.Attribute{proxytest.Key("own", "1")}}).Numbers[0]
			h.device.Lock()
			h.device.ReplaceAfter = after
			h.device.Unlock()
			answer := c.Do(t.Context(), call(c))
			left := h.device.Labels()
			others := slices.DeleteFunc(slices.Clone(left), func(l string) bool { return l == "a" || l == "renamed" })
			// A crash leaves what was made just before it.
			switch copied := name == "copy" && len(left) == 5; {
			case len(left) < 3 || !slices.Equal(others, []string{"b", "c", "d"}):
				t.Errorf("%s, replaced after %d: the device has %q", name, after, left)
			case answer.RV != cryptoki.CKR_OK && !copied && (len(left) != 4 || slices.Contains(left, "renamed")):
				t.Errorf("%s, replaced after %d: %v, and it was done: %q", name, after, answer.RV, left)
			case answer.RV != cryptoki.CKR_OK:
			case name == "read" && string(answer.Attributes[0].Value) != "a":
				t.Errorf("%s, replaced after %d: %q", name, after, answer.Attributes[0].Value)
			case name == "sign":
				if a := c.Do(t.Context(), sign(c.s, "x")); a.RV == cryptoki.CKR_OK && !bytes.Equal(a.Data, proxytest.Signature("a", "x")) {
					t.Errorf("%s, replaced after %d: by another key", name, after)
				}
			case name == "find" && len(c.must(cryptoki.FindObjects, c.s).List) != 1:
				t.Errorf("%s, replaced after %d: it is said not to be there", name, after)
			}
			h.device.Lock()
			h.device.ReplaceAfter = 0
			h.device.Unlock()
			if name != "destroy" && name != "end" && name != "rename" {
				c.signs(c.session(), c.a, "a", "afterwards")
			}
			c.Close(t.Context())
			h.empty()
		}
	}
}

// empty looks for what clients who are gone have left.
func (h *house) empty() {
	h.t.Helper()
	p := h.tokens[0].pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lent) != 0 || len(p.parked) != 0 || len(p.waiting) != 0 || p.open != len(p.idle) {
		h.t.Errorf("lent to %v, %d parked, %d waiting, %d of %d are idle", p.lent, len(p.parked), len(p.waiting), len(p.idle), p.open)
	}
	if h.tokens[0].keeper.Load() != nil {
		h.t.Error("session objects of nobody are kept")
	}
}

// TestParkedWhileOthersWait: who waits gets a session that only lies between two calls,
// also if it was in use when the wait began.
func TestParkedWhileOthersWait(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Most = 1
	pool := h.tokens[0].pool
	held, err := pool.acquire(t.Context(), authz.Identity{UID: 1})
	if err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		l, err := pool.acquire(t.Context(), authz.Identity{UID: 2})
		if err != nil {
			t.Error(err)
			return
		}
		l.release(true)
	})
	h.untilWaiting(1)
	held.park(false)
	waiting.Wait()
	if held.claim() {
		t.Error("a session has two users")
	}
	held.release(false)
	h.empty()
}

func (h *house) untilWaiting(n int) {
	h.t.Helper()
	for began := time.Now(); h.Status()[0].Waiting < n; time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			h.t.Fatalf("%d calls wait, not %d", h.Status()[0].Waiting, n)
		}
	}
}

// TestFairnessToCrowds: a user with many calls that wait does not wait for ever on one
// who comes again and again.
func TestFairnessToCrowds(t *testing.T) {
	h := newHouse(t, grant(1, "*"), grant(2, "*"))
	h.device.Most = 2
	pool := h.tokens[0].pool
	var held []*lease
	for range h.device.Most {
		l, err := pool.acquire(t.Context(), authz.Identity{UID: 1})
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
	}
	served := make(chan uint32, 6)
	var waiting sync.WaitGroup
	for i, uid := range []uint32{1, 2, 2, 2, 2, 2} {
		waiting.Go(func() {
			l, err := pool.acquire(t.Context(), authz.Identity{UID: uid})
			if err != nil {
				t.Error(err)
				return
			}
			served <- uid
			l.release(true)
		})
		h.untilWaiting(i + 1)
	}
	held[0].release(true)
	if first := <-served; first != 2 {
		t.Errorf("user %d was served first, who has a session already", first)
	}
	waiting.Wait()
	held[1].release(true)
	h.empty()
}

// TestFewerThanSaid: a device that admits fewer sessions than it says is waited for.
func TestFewerThanSaid(t *testing.T) {
	h := newHouse(t, grant(1, "*"))
	h.device.Admits = 1
	pool := h.tokens[0].pool
	held, err := pool.acquire(t.Context(), authz.Identity{UID: 1})
	if err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			l, err := pool.acquire(t.Context(), authz.Identity{UID: 1})
			if err != nil {
				t.Error(err)
				return
			}
			l.release(false)
		})
	}
	h.untilWaiting(3)
	held.release(true)
	waiting.Wait()
	h.empty()
	if got := h.Status()[0]; got.Most != 1 {
		t.Errorf("%+v", got)
	}
}
