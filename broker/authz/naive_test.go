package authz

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// naive decides as the documentation of grants says, with as little cleverness
// as possible: it sorts all grants into those that match and deny, and those
// that match and allow.
func naive(grants []Grant, r Request) (allowed bool, number int) {
	var denying, allowing []int
	for i, g := range grants {
		if naiveMatch(g, r) {
			if g.Effect == Deny {
				denying = append(denying, i+1)
			} else {
				allowing = append(allowing, i+1)
			}
		}
	}
	switch {
	case len(denying) > 0:
		return false, denying[0]
	case len(allowing) > 0:
		return true, allowing[0]
	default:
		return false, 0
	}
}

func naiveMatch(g Grant, r Request) bool {
	operation, key, caller, context := false, false, false, true
	for _, op := range g.Operations {
		operation = operation || op == r.Operation
	}
	for _, pattern := range g.Keys {
		key = key || naiveGlob(pattern, r.Key)
	}
	app := r.Caller.App != ""
	for _, pattern := range g.Apps {
		caller = caller || app && naiveGlob(pattern, r.Caller.App)
	}
	for _, uid := range g.UIDs {
		caller = caller || !app && uid == r.Caller.UID
	}
	for _, gid := range g.GIDs {
		for _, has := range append([]uint32{r.Caller.GID}, r.Caller.Groups...) {
			caller = caller || !app && gid == has
		}
	}
	for _, pattern := range g.Units {
		if app {
			continue
		} else if r.Caller.Unit.Unknown {
			caller = caller || g.Effect == Deny
		} else if r.Caller.Unit.Name != "" {
			caller = caller || naiveGlob(pattern, r.Caller.Unit.Name)
		}
	}
	for name, template := range g.Context {
		value, there := r.Context[name]
		text := template.String()
		valueless := strings.Contains(text, "{user}") && r.Caller.User == "" || strings.Contains(text, "{unit}") && r.Caller.Unit.Name == "" ||
			app && (strings.Contains(text, "{user}") || strings.Contains(text, "{uid}") || strings.Contains(text, "{unit}")) ||
			!app && strings.Contains(text, "{app}")
		text = strings.ReplaceAll(text, "{user}", r.Caller.User)
		text = strings.ReplaceAll(text, "{uid}", fmt.Sprint(r.Caller.UID))
		text = strings.ReplaceAll(text, "{unit}", r.Caller.Unit.Name)
		text = strings.ReplaceAll(text, "{app}", r.Caller.App)
		context = context && there && (valueless && g.Effect == Deny || !valueless && value == text)
	}
	return operation && key && caller && context
}

// naiveGlob knows * alone.
func naiveGlob(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	if pattern[0] == '*' {
		return naiveGlob(pattern[1:], name) || name != "" && naiveGlob(pattern, name[1:])
	}
	return name != "" && pattern[0] == name[0] && naiveGlob(pattern[1:], name[1:])
}

// dice makes random policies and requests out of few values, so that they meet.
type dice struct{ *rand.Rand }

func newDice(t *testing.T) dice {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return dice{rand.New(rand.NewPCG(seed, 0))}
}

func (dice) templates(t *testing.T) []Template {
	t.Helper()
	var templates []Template
	for _, text := range []string{"", "1", "eve", "{user}", "{uid}", "{unit}", "{uid}-{user}", "{app}", "{app}{uid}"} {
		templates = append(templates, template(t, text))
	}
	return templates
}

func pick[T any](d dice, from []T) T { return from[d.IntN(len(from))] }

// some takes each with a chance of one in n.
func some[T any](d dice, n int, from []T) []T {
	var taken []T
	for _, v := range from {
		if d.IntN(n) == 0 {
			taken = append(taken, v)
		}
	}
	return taken
}

func (d dice) grant(templates []Template) Grant {
	g := Grant{
		Keys:       some(d, 3, []string{"a", "ab", "a*", "*b", "*", "*a*b*"}),
		Operations: some(d, 2, Operations()),
		UIDs:       some(d, 4, []uint32{0, 1, 2, 3}),
		GIDs:       some(d, 4, []uint32{0, 1, 2, 3}),
		Units:      some(d, 4, []string{"x.service", "x*", "*.service", "y.scope"}),
		Apps:       some(d, 4, []string{"eve", "1", "e*", "*"}),
	}
	if d.IntN(3) == 0 {
		g.Effect = Deny
	}
	for _, name := range some(d, 4, []string{"t", "u"}) {
		if g.Context == nil {
			g.Context = map[string]Template{}
		}
		g.Context[name] = pick(d, templates)
	}
	return g
}

func (d dice) request() Request {
	c := Caller{UID: d.Uint32N(4), GID: d.Uint32N(4), Groups: some(d, 4, []uint32{0, 1, 2, 3}), User: pick(d, []string{"", "1", "eve"})}
	if c.Unit.Name = pick(d, []string{"", "x.service", "xy.service", "y.scope"}); c.Unit.Name == "" {
		c.Unit = Unit{Unknown: d.IntN(2) == 0, Why: "chance"}
	}
	if d.IntN(3) == 0 {
		// What the kernel says of others must not count, should it be there.
		c.App = pick(d, []string{"eve", "1", "x.service"})
	}
	r := Request{Caller: c, Operation: pick(d, Operations()), Key: pick(d, []string{"a", "b", "ab", "ba", "aab"})}
	for _, name := range some(d, 2, []string{"t", "u", "v"}) {
		if r.Context == nil {
			r.Context = map[string]string{}
		}
		r.Context[name] = pick(d, []string{"", "1", "eve", "x.service", "2-eve", "{user}"})
	}
	return r
}

// TestAgreesWithNaive compares the decisions of 100,000 random policies, each
// with the number of the grant that decides.
func TestAgreesWithNaive(t *testing.T) {
	d := newDice(t)
	templates := d.templates(t)
	seen := map[string]int{}
	for range 100_000 {
		grants := make([]Grant, d.IntN(8))
		for i := range grants {
			grants[i] = d.grant(templates)
		}
		request := d.request()
		decision := NewPolicy(grants).Decide(request)
		number, _, _ := decision.Grant()
		allowed, by := naive(grants, request)
		if decision.Allowed != allowed || number != by {
			t.Fatalf("%+v\n%+v\ngot %v by grant %d, the naive rules say %v by %d", request, grants, decision.Allowed, number, allowed, by)
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
