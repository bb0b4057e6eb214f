package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/pin"
)

func all(but ...ObjectOperation) []ObjectOperation {
	return slices.DeleteFunc(ObjectOperations(), func(o ObjectOperation) bool { return slices.Contains(but, o) })
}

// TestObjects is the policy matrix for objects, with the number of the grant that
// decides.
func TestObjects(t *testing.T) {
	ops := func(o ...ObjectOperation) []ObjectOperation { return o }
	policy := NewPolicy(nil,
		ObjectGrant{Tokens: []string{"luna"}, Labels: []string{"tls-*"}, Operations: ops(ObjectSign, TokenRandom), UIDs: []uint32{1000}},
		ObjectGrant{Tokens: []string{"luna"}, IDs: []string{"01ab", "02*"}, Operations: ops(ObjectDecrypt), UIDs: []uint32{1000}},
		ObjectGrant{Tokens: []string{"soft*"}, Labels: []string{"x", ""}, IDs: []string{"ff", ""}, Operations: all(), GIDs: []uint32{50}},
		ObjectGrant{Effect: Deny, Tokens: []string{"*"}, Labels: []string{"tls-old*"}, Operations: ops(ObjectFind), UIDs: []uint32{1000}},
		ObjectGrant{Effect: Deny, Tokens: []string{"luna"}, Labels: []string{"*"}, Operations: ops(ObjectSign), Units: []string{"web.service"}},
		ObjectGrant{Tokens: []string{"luna"}, Operations: all(), UIDs: []uint32{1001}},
		ObjectGrant{Tokens: []string{"luna"}, Labels: []string{"*"}, Operations: ops(TokenDigest), UIDs: []uint32{1002}},
		ObjectGrant{Tokens: []string{"dpod"}, Labels: []string{"*"}, Operations: ops(ObjectFind), Units: []string{"*"}},
		ObjectGrant{Tokens: []string{"zero"}, Labels: []string{"*"}, Operations: all(), UIDs: []uint32{0}, GIDs: []uint32{0}},
	)
	alice, staff := Caller{UID: 1000, GID: 1000}, Caller{UID: 2, GID: 2, Groups: []uint32{50}}
	in := func(c Caller, unit string) Caller { c.Unit.Name = unit; return c }
	lost := func(c Caller) Caller { c.Unit = Unit{Unknown: true, Why: "the process has ended"}; return c }
	object := func(token, label string, id ...byte) Object { return Object{token, label, id} }
	for _, tt := range []struct {
		name   string
		caller Caller
		op     ObjectOperation
		object Object
		want   bool
		by     int
	}{
		{"by label", alice, ObjectSign, object("luna", "tls-web"), true, 1},
		{"which has a slash", alice, ObjectSign, object("luna", "tls-a/b"), true, 1},
		{"finding is implied", alice, ObjectFind, object("luna", "tls-web"), true, 1},
		{"other operation", alice, ObjectDestroy, object("luna", "tls-web"), false, 0},
		{"other token", alice, ObjectSign, object("soft", "tls-web"), false, 0},
		{"other label", alice, ObjectFind, object("luna", "tlsweb"), false, 0},
		{"by id", alice, ObjectDecrypt, object("luna", "any", 1, 0xab), true, 2},
		{"by glob on ids", alice, ObjectFind, object("luna", "any", 2, 0xff), true, 2},
		{"longer id", alice, ObjectDecrypt, object("luna", "any", 1, 0xab, 0), false, 0},
		{"no id", alice, ObjectDecrypt, object("luna", "any"), false, 0},
		{"other caller", Caller{UID: 7}, ObjectSign, object("luna", "tls-web"), false, 0},
		{"root is nobody special", Caller{}, ObjectSign, object("luna", "tls-web"), false, 0},
		{"label and id", staff, ObjectWrap, object("softhsm", "x", 0xff), true, 3},
		{"label without the id", staff, ObjectWrap, object("softhsm", "x", 1), false, 0},
		{"id without the label", staff, ObjectFind, object("softhsm", "y", 0xff), false, 0},
		{"neither label nor id", staff, ObjectCreate, object("softhsm", ""), true, 3},
		{"hidden", alice, ObjectFind, object("luna", "tls-old"), false, 4},
		{"and so of no use", alice, ObjectSign, object("luna", "tls-old"), false, 4},
		{"by id neither", alice, ObjectDecrypt, object("luna", "tls-old", 1, 0xab), false, 4},
		{"which is not about the token", alice, TokenRandom, object("luna", ""), true, 1},
		{"denied by unit", in(alice, "web.service"), ObjectSign, object("luna", "tls-web"), false, 5},
		{"but seen", in(alice, "web.service"), ObjectFind, object("luna", "tls-web"), true, 1},
		{"other unit", in(alice, "batch.service"), ObjectSign, object("luna", "tls-web"), true, 1},
		{"unknown unit might be the denied one", lost(alice), ObjectSign, object("luna", "tls-web"), false, 5},
		{"neither labels nor ids are no objects", Caller{UID: 1001}, ObjectSign, object("luna", ""), false, 0},
		{"only the token", Caller{UID: 1001}, TokenRandom, object("luna", ""), true, 6},
		{"labels do not matter for the token", Caller{UID: 1002}, TokenDigest, object("luna", ""), true, 7},
		{"operations on tokens do not imply finding", Caller{UID: 1002}, ObjectFind, object("luna", "x"), false, 0},
		{"digests are no digests of keys", Caller{UID: 1002}, ObjectDigestKey, object("luna", "x"), false, 0},
		{"by unit", in(Caller{UID: 9}, "x.service"), ObjectFind, object("dpod", ""), true, 8},
		{"not by an unknown unit", lost(Caller{UID: 9}), ObjectFind, object("dpod", ""), false, 0},
		{"root", Caller{}, ObjectFind, object("zero", "x"), true, 9},
		{"an application is not root", Caller{App: "web"}, ObjectFind, object("zero", "x"), false, 0},
		{"unknown operation", staff, "C_Sign", object("softhsm", "x", 0xff), false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rights := policy.Objects(tt.caller)
			got := rights.Decide(tt.op, tt.object)
			if number, _, _ := got.Grant(); got.Allowed != tt.want || number != tt.by {
				t.Errorf("got %v by grant %d, want %v by %d", got.Allowed, number, tt.want, tt.by)
			}
			if tt.op == ObjectFind && rights.Visible(tt.object) != tt.want {
				t.Error("Visible says something else")
			}
		})
	}
	if r := policy.Objects(alice); !r.Token("luna") || r.Token("soft") || r.Token("") || !policy.Objects(staff).Token("soft") || policy.Objects(Caller{UID: 7}).Token("luna") {
		t.Error("the wrong tokens are there")
	}
	if !policy.Names(staff) || !policy.Names(Caller{}) || policy.Names(Caller{UID: 7, GID: 7}) || policy.Names(Caller{App: "web"}) {
		t.Error("the wrong callers are named")
	}
	if r := NewPolicy(nil).Objects(alice); r.Visible(object("luna", "tls-web")) || r.Token("luna") {
		t.Error("a policy without grants allows something")
	}
}

// TestVisibleAllocatesNothing, because a search asks it of every object.
func TestVisibleAllocatesNothing(t *testing.T) {
	rights := NewPolicy(nil,
		ObjectGrant{Effect: Deny, Tokens: []string{"*"}, Labels: []string{"old*é"}, IDs: []string{"a*[0-9]"}, Operations: all(), UIDs: []uint32{1}},
		ObjectGrant{Tokens: []string{"l*"}, Labels: []string{"a*", "*é?"}, IDs: []string{"00", "*ff*"}, Operations: all(), UIDs: []uint32{1}, PIN: "h"},
	).Objects(Caller{UID: 1}, Unlocked{"luna", "h"})
	object := Object{"luna", "old and more than thirty-two bytes of a label é1", slices.Repeat([]byte{0xa0, 0xff}, 32)}
	if !rights.Visible(object) {
		t.Fatal("it is not there")
	}
	if n := testing.AllocsPerRun(100, func() { rights.Visible(object) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestObjectRate(t *testing.T) {
	rate, err := ParseRate("1/h")
	if err != nil {
		t.Fatal(err)
	}
	policy := NewPolicy(nil, ObjectGrant{Tokens: []string{"t"}, Labels: []string{"*"}, Operations: all(), UIDs: []uint32{1}, Rate: rate, At: "f:3"})
	caller := Caller{UID: 1}
	first, second := policy.Objects(caller).Decide(ObjectSign, Object{Token: "t"}), policy.Objects(caller).Decide(TokenRandom, Object{Token: "t"})
	if _, at, got := first.Grant(); at != "f:3" || got != rate {
		t.Errorf("%s, %v", at, got)
	}
	if now := time.Unix(1, 0); !first.Spend(caller.Identity(), now) || second.Spend(caller.Identity(), now) {
		t.Error("rights of one caller have rates of their own")
	}
}

// TestLogin: what a grant with a PIN allows is there after the login, on that token,
// and under a new policy while the hash is the same.
func TestLogin(t *testing.T) {
	hash, err := pin.Hash([]byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	locked := ObjectGrant{Tokens: []string{"a", "b"}, Labels: []string{"x"}, Operations: all(), UIDs: []uint32{1}, PIN: hash}
	plain := ObjectGrant{Tokens: []string{"a"}, Labels: []string{"y"}, Operations: all(), UIDs: []uint32{1, 2}}
	policy, caller := NewPolicy(nil, plain, locked), Caller{UID: 1}
	x, y, b := Object{Token: "a", Label: "x"}, Object{Token: "a", Label: "y"}, Object{Token: "b", Label: "x"}
	see := func(r *Rights, want string) {
		t.Helper()
		if got := fmt.Sprint(r.Visible(x), r.Visible(y), r.Visible(b)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	before := policy.Objects(caller)
	if see(before, "false true false"); !before.AsksPIN("a") || !before.Token("b") || before.AsksPIN("c") || policy.Objects(Caller{UID: 2}).AsksPIN("a") {
		t.Error("who needs a PIN and where is wrong")
	}
	if unlocked, err := policy.Objects(Caller{UID: 2}).Login(t.Context(), "a", []byte("whatever")); unlocked != nil || err != nil {
		t.Errorf("of a caller without such grants: %v, %v", unlocked, err)
	}
	if unlocked, err := before.Login(t.Context(), "a", []byte("1235")); unlocked != nil || !errors.Is(err, pin.ErrWrong) {
		t.Errorf("%v, %v", unlocked, err)
	}
	unlocked, err := before.Login(t.Context(), "a", []byte("1234"))
	if err != nil || len(unlocked) != 1 || unlocked[0].Token != "a" {
		t.Fatalf("%v, %v", unlocked, err)
	}
	after := policy.Objects(caller, unlocked...)
	if see(after, "true true false"); !after.Decide(ObjectSign, x).PIN() || after.Decide(ObjectSign, y).PIN() {
		t.Error("whether the PIN was needed is wrong")
	}
	see(NewPolicy(nil, locked).Objects(caller, unlocked...), "true false false")
	locked.PIN += "other"
	see(NewPolicy(nil, locked).Objects(caller, unlocked...), "false false false")
}

func TestExplainObject(t *testing.T) {
	ops := []ObjectOperation{ObjectSign}
	uid := []uint32{1}
	policy := NewPolicy([]Grant{{}},
		ObjectGrant{Tokens: []string{"t"}, Labels: []string{"x"}, Operations: []ObjectOperation{ObjectWrap}, UIDs: []uint32{2}, At: "f:1"},
		ObjectGrant{Tokens: []string{"t"}, Labels: []string{"x"}, Operations: ops, UIDs: []uint32{2}, At: "f:2"},
		ObjectGrant{Tokens: []string{"u"}, Labels: []string{"x"}, Operations: ops, UIDs: uid, At: "f:3"},
		ObjectGrant{Tokens: []string{"t"}, Labels: []string{"y"}, Operations: ops, UIDs: uid, At: "f:4"},
		ObjectGrant{Tokens: []string{"t"}, IDs: []string{"01"}, Operations: ops, UIDs: uid, At: "f:5"},
		ObjectGrant{Tokens: []string{"t"}, Labels: []string{"x"}, Operations: ops, UIDs: uid, At: "f:6", PIN: "h"},
		ObjectGrant{Tokens: []string{"t"}, IDs: []string{"02"}, Operations: ops, UIDs: uid, At: "f:7"},
	)
	explain := func(id ...byte) string {
		decision, considered := policy.ExplainObject(ObjectRequest{Caller{UID: 1}, ObjectSign, Object{"t", "x", id}})
		var texts []string
		for _, c := range considered {
			texts = append(texts, fmt.Sprint(c.At, " ", c.Misses, " ", c.PIN))
		}
		number, _, _ := decision.Grant()
		return fmt.Sprint(decision.Allowed, number, decision.PIN(), ": ", strings.Join(texts, ", "))
	}
	if got, want := explain(), "true 6 true: f:1 operation false, f:2 caller false, f:3 token false, f:4 label false, f:5 id false, f:6  true, f:7 id false"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// What needs no PIN comes first.
	if got := explain(2); !strings.HasPrefix(got, "true 7 false: ") {
		t.Error(got)
	}
}
