package proxy

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// FuzzApplication makes any sequence of calls, of two clients on one token that loses its
// plugin in between. Nothing panics, neither meets an object that it must not see, and
// when both are gone nothing is left.
func FuzzApplication(f *testing.F) {
	do := func(user byte, f cryptoki.Function, session, object, with byte) []byte {
		return []byte{user, byte(f - 1), session, object, with}
	}
	for _, seed := range [][][]byte{
		{},
		{{254, 0}, do(0, cryptoki.SignInit, 1, 3, 0), do(0, cryptoki.Sign, 1, 0, 32)},
		{do(0, cryptoki.SignInit, 1, 3, 0), {255}, do(0, cryptoki.Sign, 1, 0, 32), do(1, cryptoki.SignInit, 1, 3, 0), {254, 1}, do(1, cryptoki.Sign, 1, 0, 32)},
		{do(0, cryptoki.SignInit, 1, 3, 0), do(0, cryptoki.SignUpdate, 1, 0, 1), do(0, cryptoki.SignFinal, 1, 9, 0), do(0, cryptoki.SignFinal, 1, 0, 32)},
		{do(1, cryptoki.CreateObject, 2, 0, 1<<1|1<<3), {254, 2}, do(1, cryptoki.CopyObject, 1, 3, 1<<3), do(1, cryptoki.CloseSession, 2, 0, 0)},
		{{254, 3}, do(0, cryptoki.DestroyObject, 1, 3, 0), do(0, cryptoki.DestroyObject, 1, 4, 0), {254, 1}, do(0, cryptoki.SetAttributeValue, 1, 4, 1)},
		{do(0, cryptoki.UnwrapKey, 1, 3, 1<<2), do(0, cryptoki.UnwrapKey, 1, 4, 1<<2), do(0, cryptoki.WrapKey, 1, 3, 4), do(0, cryptoki.DeriveKey, 1, 3, 1<<3)},
		{do(0, cryptoki.FindObjectsFinal, 1, 0, 0), {253}, do(0, cryptoki.FindObjectsInit, 1, 0, 1), {253}, {254, 2}, do(0, cryptoki.FindObjectsInit, 1, 0, 0)},
		{do(0, cryptoki.Logout, 1, 0, 0), do(0, cryptoki.FindObjectsInit, 2, 0, 0), do(0, cryptoki.Login, 1, 1, 0), do(1, cryptoki.CloseAllSessions, 1, 0, 0), do(1, cryptoki.Finalize, 0, 0, 0)},
	} {
		var program []byte
		for _, step := range seed {
			program = append(program, append(step, make([]byte, 5-len(step))...)...)
		}
		f.Add(program)
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 400 {
			return
		}
		play := newPlay(t)
		for len(program) >= 5 {
			play.step([5]byte(program))
			program = program[5:]
		}
		play.end()
	})
}

// play is a fuzzed program as it runs.
type play struct {
	t      *testing.T
	device *proxytest.Device
	proxy  *Proxy
	users  [2]*Application
}

// never are parts of names that a client must not see, and does not use itself.
var never = [2][]string{{"hidden", "mail-1"}, {"hidden", "web-2"}}

func newPlay(t *testing.T) *play {
	p := &play{t: t, device: proxytest.New(t)}
	p.device.Reuses = true
	p.device.Replace()
	for _, name := range []string{"web-1", "hidden", "mail-1", "hidden-2", "web-2", "kmsbroker/hidden"} {
		p.device.Put(append(proxytest.Key(name, "1"), cryptoki.Attribute{
			Type: cryptoki.CKA_UNWRAP_TEMPLATE, Length: cryptoki.AttributeSize, Nested: []cryptoki.Attribute{label(name)},
		})...)
	}
	p.proxy = New(Config{
		Tokens:   []Token{{token1, p.device}},
		Reserved: func(label string, _ []byte) bool { return label == "kmsbroker/hidden" },
		Limits:   Limits{SessionWait: time.Second, OperationIdle: time.Nanosecond, MaxSessions: 12},
		Now:      time.Now, Log: slog.New(slog.DiscardHandler),
	})
	policy := authz.NewPolicy(nil, grant(0, "web-*"), grant(1, "mail-*"))
	for i := range p.users {
		p.users[i] = p.proxy.Open(Client{
			Caller: authz.Caller{UID: uint32(i)}, Policy: func() *authz.Policy { return policy },
			Ready: func() error { return nil }, Record: func(audit.Event) error { return nil },
		})
		p.call(i, &cryptoki.Call{Function: cryptoki.Initialize})
		for range 2 {
			p.call(i, &cryptoki.Call{Function: cryptoki.OpenSession, Numbers: [4]uint64{1, cryptoki.CKF_SERIAL_SESSION | cryptoki.CKF_RW_SESSION}})
		}
		p.call(i, &cryptoki.Call{Function: cryptoki.Login, Numbers: [4]uint64{1, cryptoki.CKU_USER}})
		p.call(i, &cryptoki.Call{Function: cryptoki.FindObjectsInit, Numbers: [4]uint64{1}})
	}
	return p
}

// step is five bytes of the program: who, which function, and what with.
func (p *play) step(b [5]byte) {
	switch b[0] {
	case 255:
		p.device.Replace()
		return
	case 254:
		p.device.Lock()
		p.device.ReplaceAfter = int(b[1]%8) + 1
		p.device.Unlock()
		return
	case 253:
		p.device.Lock()
		p.device.Away = !p.device.Away
		p.device.Unlock()
		return
	}
	call := &cryptoki.Call{
		Function:  cryptoki.Function(b[1]%90 + 1),
		Numbers:   [4]uint64{uint64(b[2]), uint64(b[3]), uint64(b[4]), uint64(b[4])},
		Data:      [2][]byte{{b[4]}, {b[3]}},
		Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_AES_KEY_GEN},
		Room:      cryptoki.Room{Size: uint32(b[4]) << (b[2] % 4), Null: b[3] == 9},
	}
	if b[4] == 77 {
		call.Mechanism = nil
	}
	switch call.Function {
	case cryptoki.GenerateKeyPair:
		call.Templates = [2][]cryptoki.Attribute{template(b[3]), template(b[4])}
	case cryptoki.CreateObject, cryptoki.CopyObject, cryptoki.SetAttributeValue, cryptoki.FindObjectsInit,
		cryptoki.GenerateKey, cryptoki.UnwrapKey, cryptoki.DeriveKey:
		call.Templates[0] = template(b[4])
	case cryptoki.GetAttributeValue:
		call.Templates[0] = []cryptoki.Attribute{{Type: cryptoki.CKA_LABEL, Length: 64}, {Type: cryptoki.CKA_VALUE, Length: 64}}
	}
	p.call(int(b[0]%2), call)
}

// template has some attributes by the bits of a byte.
func template(bits byte) (t []cryptoki.Attribute) {
	for i, v := range []cryptoki.Attribute{
		label("web-1"), label("mail-2"), cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, true), cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, false),
		cryptoki.BoolAttribute(cryptoki.CKA_PRIVATE, false), cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY),
		cryptoki.BytesAttribute(cryptoki.CKA_ID, []byte("2")), cryptoki.BytesAttribute(cryptoki.CKA_VALUE, []byte("secret")),
	} {
		if bits&(1<<i) != 0 {
			t = append(t, v)
		}
	}
	return t
}

func (p *play) call(user int, call *cryptoki.Call) {
	a := p.users[user].Do(p.t.Context(), call)
	if a == nil {
		p.t.Fatalf("%v is not answered", call.Function)
	}
	for _, name := range never[user] {
		for _, v := range a.Attributes {
			if bytes.Contains(v.Value, []byte(name)) {
				p.t.Fatalf("%v: user %d sees %q", call.Function, user, v.Value)
			}
		}
	}
	if call.Function == cryptoki.Sign && a.Data != nil {
		for _, name := range append(never[user], "hidden-2", "kmsbroker/hidden") {
			if bytes.Equal(a.Data, proxytest.Signature(name, string(call.Data[0]))) {
				p.t.Fatalf("user %d signs with %q", user, name)
			}
		}
	}
}

// touch tries every handle that a client has ever had, and some more.
func (p *play) touch(user int) {
	s := p.users[user].Do(p.t.Context(), &cryptoki.Call{Function: cryptoki.OpenSession, Numbers: [4]uint64{1, cryptoki.CKF_SERIAL_SESSION}}).Numbers[0]
	for handle := range p.users[user].last + 10 {
		p.call(user, &cryptoki.Call{
			Function: cryptoki.GetAttributeValue, Numbers: [4]uint64{s, handle},
			Templates: [2][]cryptoki.Attribute{{{Type: cryptoki.CKA_LABEL, Length: 64}, {Type: cryptoki.CKA_VALUE, Length: 64}}},
		})
		p.call(user, signInit(s, handle))
		p.call(user, sign(s, "x"))
	}
}

func (p *play) end() {
	p.device.Lock()
	p.device.Away, p.device.ReplaceAfter = false, 0
	p.device.Unlock()
	for i, u := range p.users {
		p.touch(i)
		u.Close(p.t.Context())
		if len(u.sessions)+len(u.entries)+len(u.names)+len(u.loggedIn) != 0 {
			p.t.Errorf("an application that is closed has %d sessions, %d objects", len(u.sessions), len(u.entries))
		}
	}
	(&house{t: p.t, Proxy: p.proxy}).empty()
	if len(p.proxy.sessions) != 0 {
		p.t.Errorf("sessions are counted: %v", p.proxy.sessions)
	}
	hiding := 0
	for _, name := range p.device.Labels() {
		if bytes.Contains([]byte(name), []byte("hidden")) {
			hiding++
		}
	}
	if hiding != 3 {
		p.t.Errorf("the device has %q", p.device.Labels())
	}
}
