package authz

import (
	"time"

	"github.com/kmsbroker/kmsbroker/broker/pin"
)

// Policy is a list of grants that does not change, and an account of what their
// rates have left and of wrong application PINs. It may be used concurrently.
type Policy struct {
	rules   []rule
	objects []*objectRule
	guard   *pin.Guard
}

type rule struct {
	Grant
	entry
}

// entry is what a decision tells of the grant that it comes from.
type entry struct {
	number int // from 1, in the list that it stands in
	at     string
	rate   Rate
	spent  *account // nil: without a rate
	pin    bool     // it asks for an application PIN
}

func newEntry(index int, at string, rate Rate) entry {
	e := entry{number: index + 1, at: at, rate: rate}
	if rate.Calls > 0 {
		e.spent = newAccount(rate)
	}
	return e
}

// NewPolicy makes a policy of grants on keys and grants on the objects of tokens.
// Either list is numbered from 1.
func NewPolicy(grants []Grant, objects ...ObjectGrant) *Policy {
	p := &Policy{rules: make([]rule, len(grants)), guard: pin.NewGuard()}
	for i, g := range grants {
		p.rules[i] = rule{Grant: g, entry: newEntry(i, g.At, g.Rate)}
	}
	for i, g := range objects {
		p.objects = append(p.objects, newObjectRule(i, g))
	}
	return p
}

// Len returns how many grants on keys there are.
func (p *Policy) Len() int { return len(p.rules) }

// LenObjects returns how many grants on objects there are.
func (p *Policy) LenObjects() int { return len(p.objects) }

// Decision is the answer to a request. The zero Decision denies.
type Decision struct {
	Allowed bool
	by      *entry // nil: no grant matches
}

// Grant returns the number of the grant that decided, from 1 among those of its
// kind, where it is written and its rate. The number is 0 when no grant matches.
func (d Decision) Grant() (number int, at string, rate Rate) {
	if d.by == nil {
		return 0, "", Rate{}
	}
	return d.by.number, d.by.at, d.by.rate
}

// PIN reports whether the grant that decided asks for an application PIN.
func (d Decision) PIN() bool { return d.by != nil && d.by.pin }

// Decide answers a request. The first grant that matches and denies decides; if
// there is none, the first that matches and allows.
func (p *Policy) Decide(r Request) Decision {
	var decision Decision
	for i := range p.rules {
		rule := &p.rules[i]
		if decision.Allowed && rule.Effect == Allow || rule.match(&r) != (miss{}) {
			continue
		}
		if rule.Effect == Deny {
			return Decision{by: &rule.entry}
		}
		decision = Decision{Allowed: true, by: &rule.entry}
	}
	return decision
}

// Spend takes one operation of a caller from the rate of the grant that decided,
// and reports whether there was one left.
func (d Decision) Spend(who Identity, now time.Time) bool {
	return d.by == nil || d.by.spent == nil || d.by.spent.take(who, now)
}

// Refund gives back what Spend took.
func (d Decision) Refund(who Identity) {
	if d.by != nil && d.by.spent != nil {
		d.by.spent.give(who)
	}
}

// Consideration is one grant, and what of it a request does not meet.
type Consideration struct {
	Number int
	At     string
	Effect Effect
	// Misses is the first condition that is not met: "operation", "caller", "key" or
	// "context entry NAME", and of a grant on objects "operation", "caller", "token",
	// "label" or "id"; "" if the grant matches.
	Misses string
	PIN    bool // it asks for an application PIN
}

// Explain goes through all grants for a request.
func (p *Policy) Explain(r Request) []Consideration {
	all := make([]Consideration, len(p.rules))
	for i := range p.rules {
		rule := &p.rules[i]
		all[i] = Consideration{Number: rule.number, At: rule.At, Effect: rule.Effect, Misses: rule.match(&r).String()}
	}
	return all
}
