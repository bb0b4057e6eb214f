package authz

import "time"

// Policy is a list of grants that does not change, and an account of what their
// rates have left. It may be used concurrently.
type Policy struct {
	rules []rule
}

type rule struct {
	Grant
	number int // from 1
	spent  *account
}

// NewPolicy makes a policy of grants. They are numbered from 1.
func NewPolicy(grants []Grant) *Policy {
	p := &Policy{rules: make([]rule, len(grants))}
	for i, g := range grants {
		p.rules[i] = rule{Grant: g, number: i + 1}
		if g.Rate.Calls > 0 {
			p.rules[i].spent = newAccount(g.Rate)
		}
	}
	return p
}

// Len returns how many grants there are.
func (p *Policy) Len() int { return len(p.rules) }

// Decision is the answer to a request. The zero Decision denies.
type Decision struct {
	Allowed bool
	rule    *rule // nil: no grant matches
}

// Grant returns the number of the grant that decided, from 1, where it is
// written and its rate. The number is 0 when no grant matches.
func (d Decision) Grant() (number int, at string, rate Rate) {
	if d.rule == nil {
		return 0, "", Rate{}
	}
	return d.rule.number, d.rule.At, d.rule.Rate
}

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
			return Decision{rule: rule}
		}
		decision = Decision{Allowed: true, rule: rule}
	}
	return decision
}

// Spend takes one operation of a caller from the rate of the grant that decided,
// and reports whether there was one left.
func (d Decision) Spend(who Identity, now time.Time) bool {
	return d.rule == nil || d.rule.spent == nil || d.rule.spent.take(who, now)
}

// Refund gives back what Spend took.
func (d Decision) Refund(who Identity) {
	if d.rule != nil && d.rule.spent != nil {
		d.rule.spent.give(who)
	}
}

// Consideration is one grant, and what of it a request does not meet.
type Consideration struct {
	Number int
	At     string
	Effect Effect
	// Misses is the first condition that is not met: "operation", "caller", "key" or
	// "context entry NAME"; "" if the grant matches.
	Misses string
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
