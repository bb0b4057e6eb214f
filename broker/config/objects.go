package config

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/pin"
)

// objectGrants reads the grants on the objects of tokens, which are backends.
func (t *table) objectGrants(key string, backends []Backend) []authz.ObjectGrant {
	var grants []authz.ObjectGrant
	for _, sub := range t.tables(key) {
		grants = append(grants, sub.objectGrant(backends))
	}
	return grants
}

func (t *table) objectGrant(backends []Backend) authz.ObjectGrant {
	g := authz.ObjectGrant{
		Effect:     t.effect("effect"),
		Tokens:     t.tokens("tokens", backends),
		Labels:     t.labels("labels"),
		IDs:        t.objectIDs("ids"),
		Operations: operations(t, "operations", authz.ObjectOperations()),
		UIDs:       t.ids("users", "user", t.doc.accounts.user),
		GIDs:       t.ids("groups", "group", t.doc.accounts.group),
		Units:      t.units("units"),
		Rate:       t.rate("rate"),
		PIN:        t.pinHash("pin"),
		At:         fmt.Sprintf("%s:%d", t.doc.file, t.line),
	}
	if _, ok := t.value("apps"); ok {
		t.problem("apps", "%s: applications with an access key do not speak PKCS#11; grant to users, groups or units", t.full("apps"))
	}
	if !t.filled("users") && !t.filled("groups") && !t.filled("units") {
		t.doc.problem(t.line, "%s is about nobody: it needs users, groups or units", t.name)
	}
	t.checkObjects(&g)
	for _, key := range []string{"rate", "pin"} {
		if g.Effect == authz.Deny && t.filled(key) {
			t.problem(key, "%s limits what a grant allows, and this one denies", t.full(key))
		}
	}
	t.done()
	return g
}

// checkObjects makes sure that a grant is about objects if and only if its
// operations are.
func (t *table) checkObjects(g *authz.ObjectGrant) {
	onObjects := slices.IndexFunc(g.Operations, func(o authz.ObjectOperation) bool { return !o.OnToken() })
	named := t.filled("labels") || t.filled("ids")
	switch {
	case len(g.Operations) == 0 || g.Operations[max(onObjects, 0)] == "": // a problem already
	case onObjects >= 0 && !named:
		t.doc.problem(t.line, `%s is about no objects, and %s needs some: give labels or ids; labels = ["*"] is all of them`, t.name, g.Operations[onObjects])
	case onObjects < 0 && named:
		t.doc.problem(t.line, "%s has labels or ids, and %s is about the whole token: leave them out", t.name, g.Operations[0])
	}
}

// tokens reads names of backends and patterns for them. A name that no backend has
// is a slip: a pattern may be for what is yet to come.
func (t *table) tokens(key string, backends []Backend) []string {
	names := make([]string, len(backends))
	for i, b := range backends {
		names[i] = b.Name
	}
	var tokens []string
	for _, e := range t.list(key) {
		token, ok := e.value.(string)
		_, bad := path.Match(token, "")
		isPattern := strings.ContainsAny(token, `*?[\`)
		switch {
		case !ok:
			t.doc.problem(e.line, "%s must hold strings, not %s", t.full(key), kindOf(e.value))
		case isPattern && (bad != nil || strings.ContainsAny(token, "/\x00")), token == "":
			t.doc.problem(e.line, "%s: %q is neither the name of a backend nor a pattern such as \"luna-*\"", t.full(key), token)
		case !isPattern && !slices.Contains(names, token):
			hint := didYouMean(token, names)
			if hint == "" && len(names) > 0 {
				hint = ": there are " + strings.Join(names, ", ")
			}
			t.doc.problem(e.line, "%s: there is no [backend.%s]%s", t.full(key), token, hint)
		}
		tokens = append(tokens, token)
	}
	return tokens
}

// labels reads labels of objects and patterns for them. They may have any bytes, and
// the empty one is that of what has none.
func (t *table) labels(key string) []string {
	return t.objectNames(key, func(label string) string {
		if _, err := path.Match(label, ""); err != nil {
			return `is neither a label nor a pattern such as "tls-*"`
		}
		return ""
	})
}

// objectIDs reads ids of objects as tools print them, and patterns for them.
func (t *table) objectIDs(key string) []string {
	const digits, meta = "0123456789abcdef", `*?[]^-\`
	return t.objectNames(key, func(id string) string {
		_, bad := path.Match(id, "")
		plain := strings.ReplaceAll(strings.ToLower(id), ":", "")
		switch {
		case plain != id && strings.Trim(plain, digits) == "":
			return fmt.Sprintf("must be of the digits 0-9 and a-f alone: %q", plain)
		case bad != nil || strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune(digits+meta, r) }):
			return `is neither an id in hexadecimal digits nor a pattern such as "01*"`
		case !strings.ContainsAny(id, meta) && len(id)%2 != 0:
			return "ends within a byte, each of which has two digits"
		default:
			return ""
		}
	})
}

// objectNames reads a list that may be missing but not empty. Wrong says what is wrong
// with a member.
func (t *table) objectNames(key string, wrong func(string) string) []string {
	if _, there := t.values[key]; there && !t.filled(key) {
		t.problem(key, "%s must not be empty", t.full(key))
	}
	var names []string
	for _, e := range t.array(key) {
		name, ok := e.value.(string)
		if !ok {
			t.doc.problem(e.line, "%s must hold strings, not %s", t.full(key), kindOf(e.value))
		} else if what := wrong(name); what != "" {
			t.doc.problem(e.line, "%s: %q %s", t.full(key), name, what)
		}
		names = append(names, name)
	}
	return names
}

// pinHash reads the hash of an application PIN. What else stands there may be the PIN
// and is not repeated.
func (t *table) pinHash(key string) string {
	text, ok := read[string](t, key, "a string")
	if !ok {
		return ""
	}
	if err := pin.CheckHash(text); err != nil {
		t.problem(key, "%s is no hash of a PIN: %v", t.full(key), err)
	}
	return text
}
