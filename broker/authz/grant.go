package authz

import "slices"

// Effect is what a grant does to the requests that it matches.
type Effect int

// The effects.
const (
	Allow Effect = iota
	Deny
)

// String returns "allow" or "deny".
func (e Effect) String() string {
	if e == Deny {
		return "deny"
	}
	return "allow"
}

// Grant allows callers operations with keys, or denies them. A caller matches
// when its uid, one of its groups or its unit is listed; an application, which has
// none of these, when its name is.
type Grant struct {
	Effect     Effect
	Keys       []string // names or globs in the syntax of path.Match
	Operations []Operation
	UIDs       []uint32
	GIDs       []uint32 // compared with primary and supplementary groups
	Units      []string // names or globs in the syntax of path.Match
	Apps       []string // names or globs in the syntax of path.Match
	// Context has the entries that the encryption context must have. It may have
	// others.
	Context map[string]Template
	Rate    Rate // for each uid and each application; zero is no limit
	// At is where the grant is written, as file:line.
	At string
}

// miss is the first condition of a grant that a request does not meet. The zero
// miss is a match.
type miss struct {
	condition string
	entry     string // of the context
}

func (m miss) String() string {
	if m.entry != "" {
		return m.condition + " entry " + m.entry
	}
	return m.condition
}

// match compares a request with the conditions of a grant.
func (g *Grant) match(r *Request) miss {
	m := g.matchBut(r)
	if (m == (miss{}) || m.entry != "") && !matchAny(g.Keys, r.Key) {
		return miss{condition: "key"}
	}
	return m
}

// matchBut compares all but the key, what costs the least first.
func (g *Grant) matchBut(r *Request) miss {
	switch {
	case !slices.Contains(g.Operations, r.Operation):
		return miss{condition: "operation"}
	case !g.who().covers(&r.Caller, g.Effect):
		return miss{condition: "caller"}
	}
	for name, template := range g.Context {
		if !g.requires(template, name, r) {
			return miss{condition: "context", entry: name}
		}
	}
	return miss{}
}

func (g *Grant) who() who { return who{g.UIDs, g.GIDs, g.Units, g.Apps} }

// requires reports whether a request has an entry of the context as the grant
// wants it.
func (g *Grant) requires(template Template, name string, r *Request) bool {
	value, there := r.Context[name]
	if !there {
		return false
	}
	want, known := template.expand(&r.Caller)
	if !known {
		return g.Effect == Deny
	}
	return value == want
}
