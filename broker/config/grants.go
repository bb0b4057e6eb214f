package config

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/internal/cgroup"
)

func (t *table) grants(key string) []authz.Grant {
	var grants []authz.Grant
	for _, sub := range t.tables(key) {
		grants = append(grants, sub.grant())
	}
	return grants
}

// tables opens what is written as [[key]].
func (t *table) tables(key string) []*table {
	if _, single := t.values[key].(map[string]any); single {
		t.known = append(t.known, key)
		t.problem(key, "%s must be a list: write [[%s]]", t.full(key), key)
		return nil
	}
	var all []*table
	for i, e := range t.array(key) {
		values, ok := e.value.(map[string]any)
		if !ok {
			t.doc.problem(e.line, "%s must be a list of tables, not of %s", t.full(key), kindOf(e.value))
			continue
		}
		all = append(all, &table{doc: t.doc, name: fmt.Sprintf("%s[%d]", key, i+1), path: e.path, line: e.line, values: values})
	}
	return all
}

func (t *table) grant() authz.Grant {
	g := authz.Grant{
		Effect:     t.effect("effect"),
		Keys:       t.patterns("keys"),
		Operations: t.operations("operations"),
		UIDs:       t.ids("users", "user", t.doc.accounts.user),
		GIDs:       t.ids("groups", "group", t.doc.accounts.group),
		Units:      t.units("units"),
		Apps:       t.apps("apps"),
		Context:    t.templates("context"),
		Rate:       t.rate("rate"),
		At:         fmt.Sprintf("%s:%d", t.doc.file, t.line),
	}
	if !t.filled("users") && !t.filled("groups") && !t.filled("units") && !t.filled("apps") {
		t.doc.problem(t.line, "%s is about nobody: it needs users, groups, units or apps", t.name)
	}
	if g.Effect == authz.Deny && t.filled("rate") {
		t.problem("rate", "%s limits what a grant allows, and this one denies", t.full("rate"))
	}
	t.done()
	return g
}

var effects = map[string]authz.Effect{"allow": authz.Allow, "deny": authz.Deny}

func (t *table) effect(key string) authz.Effect {
	name := t.text(key, "allow")
	effect, ok := effects[name]
	if !ok {
		t.problem(key, `%s must be "allow" or "deny", not %q`, t.full(key), name)
	}
	return effect
}

// units reads names of units and patterns for them.
func (t *table) units(key string) []string {
	var units []string
	for _, e := range t.array(key) {
		unit, ok := e.value.(string)
		_, bad := path.Match(unit, "")
		isPattern := strings.ContainsAny(unit, "*?[")
		switch {
		case !ok:
			t.doc.problem(e.line, "%s must hold strings, not %s", t.full(key), kindOf(e.value))
		case isPattern && (bad != nil || strings.ContainsAny(unit, "/\x00")), !isPattern && !cgroup.ValidUnit(unit):
			t.doc.problem(e.line, "%s: %q is neither the full name of a unit such as \"app.service\" nor a pattern such as \"app@*.service\"", t.full(key), unit)
		case strings.HasSuffix(unit, ".slice"):
			t.doc.problem(e.line, "%s: %q is a slice, in which no processes run", t.full(key), unit)
		}
		units = append(units, unit)
	}
	return units
}

// apps reads names of applications and patterns for them. Whether there is one of
// a name is nothing that the file could know.
func (t *table) apps(key string) []string {
	var apps []string
	for _, e := range t.array(key) {
		app, ok := e.value.(string)
		_, bad := path.Match(app, "")
		isPattern := strings.ContainsAny(app, `*?[\`)
		switch {
		case !ok:
			t.doc.problem(e.line, "%s must hold strings, not %s", t.full(key), kindOf(e.value))
		case isPattern && (bad != nil || strings.ContainsAny(app, "/\x00")), !isPattern && authz.CheckApp(app) != nil:
			t.doc.problem(e.line, "%s: %q is neither the name of an application nor a pattern such as \"web-*\"", t.full(key), app)
		}
		apps = append(apps, app)
	}
	return apps
}

// templates reads the entries that an encryption context must have.
func (t *table) templates(key string) map[string]authz.Template {
	texts := t.texts(key)
	sub := &table{doc: t.doc, name: t.full(key), path: keyPath(t.path, key), line: t.lineOf(key)}
	var templates map[string]authz.Template
	for name, text := range texts {
		template, err := authz.ParseTemplate(text)
		switch {
		case err != nil:
			sub.problem(name, "%s: %v", sub.full(name), err)
		case strings.HasPrefix(name, authz.ReservedContext):
			sub.problem(name, "%s: entries that begin %q are the broker's own, and no caller can have them", sub.full(name), authz.ReservedContext)
		}
		if templates == nil {
			templates = map[string]authz.Template{}
		}
		templates[name] = template
	}
	return templates
}

func (t *table) rate(key string) authz.Rate {
	text, ok := read[string](t, key, "a string")
	if !ok {
		return authz.Rate{}
	}
	rate, err := authz.ParseRate(text)
	if err != nil {
		t.problem(key, "%s: %v", t.full(key), err)
	}
	return rate
}

// filled reports that key has something, right or wrong.
func (t *table) filled(key string) bool {
	v, ok := t.values[key]
	list, isList := v.([]any)
	return ok && (!isList || len(list) > 0)
}

// list opens an array that must have members.
func (t *table) list(key string) []element {
	if t.present(key) && !t.filled(key) {
		t.problem(key, "%s must not be empty", t.full(key))
	}
	return t.array(key)
}

func (t *table) patterns(key string) []string {
	var patterns []string
	for _, e := range t.list(key) {
		pattern, ok := e.value.(string)
		_, bad := path.Match(pattern, "")
		switch {
		case !ok:
			t.doc.problem(e.line, "%s must hold strings, not %s", t.full(key), kindOf(e.value))
		case pattern == "" || bad != nil || strings.ContainsAny(pattern, "/\x00"):
			t.doc.problem(e.line, "%s: %q is neither the name of a key nor a pattern such as \"app-*\"", t.full(key), pattern)
		}
		patterns = append(patterns, pattern)
	}
	return patterns
}

func (t *table) operations(key string) []authz.Operation {
	return operations(t, key, authz.Operations())
}

// operations reads a list of some of those that there are.
func operations[T ~string](t *table, key string, all []T) []T {
	var names []string
	for _, op := range all {
		names = append(names, string(op))
	}
	var operations []T
	for _, e := range t.list(key) {
		name, ok := e.value.(string)
		switch {
		case !ok:
			t.doc.problem(e.line, "%s must hold strings, not %s", t.full(key), kindOf(e.value))
		case !slices.Contains(names, name):
			hint := didYouMean(name, names)
			if hint == "" {
				hint = ": there are " + strings.Join(names, ", ")
			}
			t.doc.problem(e.line, "%s: unknown operation %q%s", t.full(key), name, hint)
		}
		operations = append(operations, T(name))
	}
	return operations
}

// ids reads names, which are looked up, and numbers, which are taken as they are.
func (t *table) ids(key, kind string, lookUp func(string) (uint32, error)) []uint32 {
	var ids []uint32
	for _, e := range t.array(key) {
		switch v := e.value.(type) {
		case string:
			id, err := lookUp(v)
			if err != nil {
				t.doc.problem(e.line, "%s: %v", t.full(key), err)
			}
			ids = append(ids, id)
		case int64:
			// The highest number is (uid_t)-1, which means nobody in
			// particular to chown(2) and setuid(2).
			if v < 0 || v >= math.MaxUint32 {
				t.doc.problem(e.line, "%s: %d is not the number of a %s", t.full(key), v, kind)
			}
			ids = append(ids, uint32(v))
		default:
			t.doc.problem(e.line, "%s must hold names or numbers, not %s", t.full(key), kindOf(v))
		}
	}
	return ids
}
