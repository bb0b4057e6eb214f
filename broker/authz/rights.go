package authz

import (
	"context"
	"slices"

	"github.com/kmsbroker/kmsbroker/broker/pin"
)

// Rights are the grants on objects of a policy that are about one caller. They do
// not change, and may be used concurrently.
type Rights struct {
	guard    *pin.Guard
	identity Identity
	deny     []*objectRule
	allow    []*objectRule
	unlocked []Unlocked
	// loggedIn: with all PINs.
	loggedIn bool
}

// Unlocked is an application PIN that a caller has proved to know, on one token. It
// outlives the policy: under a new one it holds for the grants with the same hash.
type Unlocked struct {
	Token string
	hash  string
}

// Objects returns what a policy says to one caller about objects, given the PINs
// with which its application has logged in. An application known by an access key
// has no such rights.
func (p *Policy) Objects(c Caller, unlocked ...Unlocked) *Rights {
	r := &Rights{guard: p.guard, identity: c.Identity(), unlocked: slices.Clone(unlocked)}
	for _, rule := range p.objects {
		switch {
		case !rule.who().covers(&c, rule.Effect):
		case rule.Effect == Deny:
			r.deny = append(r.deny, rule)
		default:
			r.allow = append(r.allow, rule)
		}
	}
	return r
}

// Token reports whether a token is there for the caller: some grant allows something
// on it, if only after a login.
func (r *Rights) Token(name string) bool {
	return slices.ContainsFunc(r.allow, func(rule *objectRule) bool { return matchAny(rule.Tokens, name) })
}

// Visible reports whether an object is there for the caller. It is Decide for
// ObjectFind, and allocates nothing for an id of up to 64 bytes.
func (r *Rights) Visible(o Object) bool { return r.Decide(ObjectFind, o).Allowed }

// Decide answers whether the caller may do an operation with an object, or with a
// token, of whose object there is the Token alone. The first grant that matches and
// denies decides; if there is none, the first that matches and allows. What may not
// be found may not be used, whatever else is allowed.
func (r *Rights) Decide(op ObjectOperation, o Object) Decision {
	for _, rule := range r.deny {
		if rule.misses(op, &o) == "" {
			return Decision{by: &rule.entry}
		}
	}
	for _, rule := range r.allow {
		if r.open(rule, o.Token) && rule.misses(op, &o) == "" {
			return Decision{Allowed: true, by: &rule.entry}
		}
	}
	return Decision{}
}

// open reports whether the grant asks for no PIN or the caller has given it.
func (r *Rights) open(rule *objectRule, token string) bool {
	return rule.PIN == "" || r.loggedIn || slices.Contains(r.unlocked, Unlocked{token, rule.PIN})
}

// AsksPIN reports whether there are grants on a token that allow something after a
// login with an application PIN. Without any, a PIN that is given means nothing.
func (r *Rights) AsksPIN(token string) bool { return len(r.hashes(token)) > 0 }

// hashes returns those of the PINs that grants on a token ask for, each once.
func (r *Rights) hashes(token string) []string {
	var hashes []string
	for _, rule := range r.allow {
		if rule.PIN != "" && !slices.Contains(hashes, rule.PIN) && matchAny(rule.Tokens, token) {
			hashes = append(hashes, rule.PIN)
		}
	}
	return hashes
}

// Login compares an application PIN with those that grants on a token ask for, and
// returns what it unlocks: nothing, without an error, if no grant asks for one. The
// errors are those of [pin.Guard.Check]. It takes a while, and waits for a turn.
func (r *Rights) Login(ctx context.Context, token string, given []byte) ([]Unlocked, error) {
	hashes := r.hashes(token)
	if len(hashes) == 0 {
		return nil, nil
	}
	known, err := r.guard.Check(ctx, r.identity.String(), hashes, given)
	if err != nil {
		return nil, err
	}
	unlocked := make([]Unlocked, len(known))
	for i, hash := range known {
		unlocked[i] = Unlocked{token, hash}
	}
	return unlocked, nil
}

// ObjectRequest is what somebody wants to know about.
type ObjectRequest struct {
	Caller    Caller
	Operation ObjectOperation
	Object    Object
}

// ExplainObject returns what is decided, and goes through all grants on objects for
// it. When only a login with an application PIN makes it allowed, it returns that.
func (p *Policy) ExplainObject(q ObjectRequest) (Decision, []Consideration) {
	all := make([]Consideration, len(p.objects))
	for i, rule := range p.objects {
		misses := rule.misses(q.Operation, &q.Object)
		if misses != "operation" && !rule.who().covers(&q.Caller, rule.Effect) {
			misses = "caller"
		}
		all[i] = Consideration{Number: rule.number, At: rule.at, Effect: rule.Effect, Misses: misses, PIN: rule.pin}
	}
	r := p.Objects(q.Caller)
	decision := r.Decide(q.Operation, q.Object)
	if number, _, _ := decision.Grant(); number == 0 {
		r.loggedIn = true
		decision = r.Decide(q.Operation, q.Object)
	}
	return decision, all
}

// Anywhere is Decide for an object that only its maker will ever see: the operation
// has to be allowed on some objects of the token, under whatever name.
func (r *Rights) Anywhere(op ObjectOperation, o Object) Decision {
	for _, rule := range r.deny {
		if rule.misses(op, &o) == "" {
			return Decision{by: &rule.entry}
		}
	}
	for _, rule := range r.allow {
		if r.open(rule, o.Token) && rule.does(op) && matchAny(rule.Tokens, o.Token) {
			return Decision{Allowed: true, by: &rule.entry}
		}
	}
	return Decision{}
}
