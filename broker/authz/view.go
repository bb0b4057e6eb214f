package authz

import "slices"

// Permission is an operation that a caller may do with a key, given that the
// encryption context has certain entries.
type Permission struct {
	Operation Operation
	Context   map[string]string // nil if none are needed
}

// Permissions lists what a caller may do with a key. Where several grants allow an
// operation, the first one whose own context is allowed says which it needs.
func (p *Policy) Permissions(caller Caller, key string) []Permission {
	var all []Permission
	for _, operation := range Operations() {
		r := Request{Caller: caller, Operation: operation, Key: key}
		for i := range p.rules {
			var ok bool
			if r.Context, ok = p.rules[i].needs(&caller); ok && p.rules[i].match(&r) == (miss{}) && p.Decide(r).Allowed {
				all = append(all, Permission{operation, r.Context})
				break
			}
		}
	}
	return all
}

// needs returns the context that a grant wants from a caller, false for one that
// allows nothing or whose templates have no value.
func (g *Grant) needs(caller *Caller) (map[string]string, bool) {
	if g.Effect == Deny {
		return nil, false
	}
	var context map[string]string
	for name, template := range g.Context {
		value, known := template.expand(caller)
		if !known {
			return nil, false
		}
		if context == nil {
			context = make(map[string]string, len(g.Context))
		}
		context[name] = value
	}
	return context, true
}

// Names reports whether some grant allows the caller something, with keys or with
// objects.
func (p *Policy) Names(caller Caller) bool {
	return slices.ContainsFunc(p.rules, func(r rule) bool { return r.Effect == Allow && r.who().covers(&caller, Allow) }) ||
		slices.ContainsFunc(p.objects, func(r *objectRule) bool { return r.Effect == Allow && r.who().covers(&caller, Allow) })
}

// Patterns returns the names and globs of the keys of those grants that allow what a
// request asks for, whatever key it names. MatchKey compares one with a name.
func (p *Policy) Patterns(r Request) []string {
	var patterns []string
	for i := range p.rules {
		if g := &p.rules[i].Grant; g.Effect == Allow && g.matchBut(&r) == (miss{}) {
			patterns = append(patterns, g.Keys...)
		}
	}
	return patterns
}

// MatchKey reports whether a pattern of a grant covers the key of that name.
func MatchKey(pattern, name string) bool { return matchAny([]string{pattern}, name) }
