package proxy

import (
	"bytes"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// signer is a client that signs again and again, and a device that counts how often it
// is asked.
type signer struct {
	*user
	house *house
	s, k  uint64
}

func newSigner(t *testing.T) *signer {
	h := newHouse(t, grant(1, "*"))
	h.device.Put(proxytest.Key("k", "1")...)
	u := h.user(1)
	s := u.session()
	return &signer{u, h, s, u.one(s, "k")}
}

// begin begins a signature, for which the device has to be asked or not.
func (g *signer) begin(asked bool) {
	g.t.Helper()
	before := g.house.device.Count(cryptoki.SignInit)
	g.want(cryptoki.CKR_OK, usualSignInit(g.s, g.k))
	if got := g.house.device.Count(cryptoki.SignInit) > before; got != asked {
		g.t.Errorf("the device was asked: %v, want %v", got, asked)
	}
}

// length asks for the length of a signature, for which the device has to be asked or not.
func (g *signer) length(asked bool) {
	g.t.Helper()
	call := sign(g.s, "x")
	call.Room = cryptoki.Room{Null: true}
	before := g.house.device.Count(cryptoki.Sign)
	if a := g.want(cryptoki.CKR_OK, call); a.Size != 32 || a.Data != nil {
		g.t.Errorf("a length is answered with %+v", a)
	}
	if got := g.house.device.Count(cryptoki.Sign) > before; got != asked {
		g.t.Errorf("the device was asked for a length: %v, want %v", got, asked)
	}
}

// small is a signature for which there is too little room.
func small(s uint64) *cryptoki.Call {
	call := sign(s, "x")
	call.Room.Size = 31
	return call
}

func (g *signer) sign() {
	g.t.Helper()
	g.signed(g.s, "k", "x")
}

// TestRememberedBeginnings: an operation that the device has begun before begins without
// it, holds none of its sessions until it is used, and is like any other then.
func TestRememberedBeginnings(t *testing.T) {
	g := newSigner(t)
	g.begin(true)
	g.sign()
	g.begin(false)
	if lent := g.house.Status()[0].Lent(); lent != 0 {
		t.Errorf("%d sessions are lent", lent)
	}
	g.want(cryptoki.CKR_OPERATION_ACTIVE, usualSignInit(g.s, g.k))
	g.length(true) // on the device, where the other beginning was refused
	g.sign()
	g.begin(false)
	g.length(false)
	g.want(cryptoki.CKR_BUFFER_TOO_SMALL, small(g.s))
	g.sign()
	g.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, sign(g.s, "x"))

	g.begin(false)
	g.want(cryptoki.CKR_OK, update(g.s))
	final := &cryptoki.Call{Function: cryptoki.SignFinal, Numbers: [4]uint64{g.s}, Room: cryptoki.Room{Size: 64}}
	if a := g.want(cryptoki.CKR_OK, final); !bytes.Equal(a.Data, proxytest.Signature("k", string(update(g.s).Data[0]))) {
		t.Error("a signature in parts is wrong")
	}

	g.begin(false)
	g.want(cryptoki.CKR_DATA_INVALID, sign(g.s, "refuse"))
	g.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, sign(g.s, "x"))
	g.begin(false)
	g.sign()
}

// TestForgottenBeginnings: what a beginning depends on may have changed.
func TestForgottenBeginnings(t *testing.T) {
	for name, change := range map[string]func(g *signer){
		"attributes": func(g *signer) {
			g.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.SetAttributeValue, Numbers: [4]uint64{g.s, g.k}, Templates: [2][]cryptoki.Attribute{{label("k")}}})
		},
		"time": func(g *signer) {
			g.house.tokens[0].now = func() time.Time { return time.Now().Add(fresh + time.Second) }
		},
		"process": func(g *signer) { g.house.device.Replace() },
	} {
		t.Run(name, func(t *testing.T) {
			g := newSigner(t)
			g.begin(true)
			g.sign()
			change(g)
			g.begin(true)
			g.sign()
		})
	}
	t.Run("parameters", func(t *testing.T) {
		g := newSigner(t)
		for _, salt := range []uint64{20, 20, 32} {
			init := usualSignInit(g.s, g.k)
			init.Mechanism.Parameter = &cryptoki.PSS{SaltLength: salt}
			g.want(cryptoki.CKR_OK, init)
			g.sign()
		}
		if n := g.house.device.Count(cryptoki.SignInit); n != 3 {
			t.Errorf("C_SignInit was called %d times", n)
		}
	})
}

// TestBrokenPromises: an operation that began without the device, and cannot.
func TestBrokenPromises(t *testing.T) {
	t.Run("the key is gone", func(t *testing.T) {
		g := newSigner(t)
		g.begin(true)
		g.sign()
		g.begin(false)
		g.house.device.Lose()
		g.want(cryptoki.CKR_OBJECT_HANDLE_INVALID, sign(g.s, "x"))
		g.want(cryptoki.CKR_OPERATION_NOT_INITIALIZED, sign(g.s, "x"))
		g.want(cryptoki.CKR_OBJECT_HANDLE_INVALID, usualSignInit(g.s, g.k))
		trail := g.house.trail()
		if last := trail[len(trail)-1]; last != "pkcs11.sign failed k" {
			t.Errorf("recorded %q", trail)
		}
	})
	t.Run("the process is another", func(t *testing.T) {
		g := newSigner(t)
		g.begin(true)
		g.sign()
		g.begin(false)
		g.house.device.Replace()
		g.sign()
	})
	t.Run("something was left on the session", func(t *testing.T) {
		g := newSigner(t)
		g.begin(true)
		g.sign()
		g.begin(false)
		proxytest.LeaveSignature(g.house.tokens[0].pool.idle[0], proxytest.Key("another", "2")...)
		g.sign()
	})
}
