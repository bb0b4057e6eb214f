package authz

import (
	"encoding/hex"
	"testing"
)

// naiveObject decides as docs/grants.md says of [[pkcs11]].
func naiveObject(grants []ObjectGrant, q ObjectRequest, unlocked []Unlocked) (allowed bool, number int) {
	first := map[Effect]int{}
	for i, g := range grants {
		if first[g.Effect] == 0 && naiveObjectMatch(g, q, unlocked) {
			first[g.Effect] = i + 1
		}
	}
	if first[Deny] > 0 {
		return false, first[Deny]
	}
	return first[Allow] > 0, first[Allow]
}

func naiveObjectMatch(g ObjectGrant, q ObjectRequest, unlocked []Unlocked) bool {
	// Who calls is what it is for keys.
	key := Grant{Effect: g.Effect, Keys: []string{"*"}, Operations: []Operation{Encrypt}, UIDs: g.UIDs, GIDs: g.GIDs, Units: g.Units}
	if !naiveMatch(key, Request{Caller: q.Caller, Operation: Encrypt, Key: "k"}) {
		return false
	}
	onToken := map[ObjectOperation]bool{"random": true, "digest": true}
	named, finds, about := false, false, false
	for _, op := range g.Operations {
		named = named || op == q.Operation
		finds = finds || op == "find"
		about = about || !onToken[op]
	}
	if !onToken[q.Operation] {
		if g.Effect == Deny && finds || g.Effect == Allow && q.Operation == "find" && about {
			named = true
		}
	}
	token, label, id := false, len(g.Labels) == 0, len(g.IDs) == 0
	for _, pattern := range g.Tokens {
		token = token || naiveGlob(pattern, q.Object.Token)
	}
	for _, pattern := range g.Labels {
		label = label || naiveGlob(pattern, q.Object.Label)
	}
	for _, pattern := range g.IDs {
		id = id || naiveGlob(pattern, hex.EncodeToString(q.Object.ID))
	}
	object := label && id && (len(g.Labels) > 0 || len(g.IDs) > 0)
	in := g.PIN == ""
	for _, u := range unlocked {
		in = in || u.Token == q.Object.Token && u.hash == g.PIN
	}
	return named && token && in && (onToken[q.Operation] || object)
}

func (d dice) objectGrant() ObjectGrant {
	few := d.grant([]Template{{}})
	g := ObjectGrant{
		Effect: few.Effect, UIDs: few.UIDs, GIDs: few.GIDs, Units: few.Units,
		Tokens: some(d, 2, []string{"t", "u", "*", "t*"}), Labels: some(d, 4, []string{"", "a", "a*", "*b", "*", "*/*b*"}),
		IDs: some(d, 6, []string{"", "01", "0*", "*f", "*"}), Operations: some(d, 3, ObjectOperations()),
	}
	if g.Effect == Allow && d.IntN(4) == 0 {
		g.PIN = pick(d, []string{"1", "2"})
	}
	return g
}

// TestObjectsAgreeWithNaive compares the decisions of 100,000 random policies.
func TestObjectsAgreeWithNaive(t *testing.T) {
	d := newDice(t)
	seen := map[string]int{}
	for range 100_000 {
		grants := make([]ObjectGrant, d.IntN(8))
		for i := range grants {
			grants[i] = d.objectGrant()
		}
		q := ObjectRequest{d.request().Caller, pick(d, ObjectOperations()), Object{pick(d, []string{"t", "u", "tt"}), pick(d, []string{"", "a", "ab", "a/b", "/"}), pick(d, [][]byte{nil, {1}, {0xff}, {0, 0xf}})}}
		if d.IntN(3) == 0 {
			q.Operation = ObjectFind
		}
		unlocked := some(d, 3, []Unlocked{{"t", "1"}, {"t", "2"}, {"u", "1"}})
		rights := NewPolicy(nil, grants...).Objects(q.Caller, unlocked...)
		decision := rights.Decide(q.Operation, q.Object)
		number, _, _ := decision.Grant()
		allowed, by := naiveObject(grants, q, unlocked)
		if decision.Allowed != allowed || number != by {
			t.Fatalf("%+v, unlocked %v\n%+v\ngot %v by grant %d, the naive rules say %v by %d", q, unlocked, grants, decision.Allowed, number, allowed, by)
		}
		// Whatever may be done is done with what is there, on a token that is there.
		if allowed && (!rights.Token(q.Object.Token) || !q.Operation.OnToken() && !rights.Visible(q.Object)) {
			t.Fatalf("%+v\n%+v\nallowed with what is not there", q, grants)
		}
		switch {
		case allowed:
			seen["allowed"]++
		case by > 0:
			seen["denied by a grant"]++
		default:
			seen["denied for want of one"]++
		}
	}
	for _, outcome := range []string{"allowed", "denied by a grant", "denied for want of one"} {
		if seen[outcome] < 5000 {
			t.Errorf("%s only %d times: the random policies show too little", outcome, seen[outcome])
		}
	}
}
