package config

import (
	"slices"
	"strings"
	"time"
)

// table reads one table of the file. Every read tells it a key that may stand
// there; what is left at done is a mistake.
type table struct {
	doc    *document
	name   string // as an administrator would write it, empty for the root
	path   string
	line   int
	values map[string]any
	known  []string
}

func (t *table) problem(key, format string, args ...any) {
	t.doc.problem(t.lineOf(key), format, args...)
}

func (t *table) lineOf(key string) int {
	if line := t.doc.lines[keyPath(t.path, key)]; line > 0 {
		return line
	}
	return t.line
}

// full is the name of a key as messages give it.
func (t *table) full(key string) string {
	if t.name == "" {
		return key
	}
	return t.name + "." + key
}

// done reports the keys that nobody asked for.
func (t *table) done() {
	for key := range t.values {
		if !slices.Contains(t.known, key) {
			t.problem(key, "unknown key %s%s", t.full(key), didYouMean(key, t.known))
		}
	}
}

func (t *table) value(key string) (any, bool) {
	t.known = append(t.known, key)
	v, ok := t.values[key]
	return v, ok
}

// read returns the value of key if it is there and a T; a value of another type
// is a problem.
func read[T any](t *table, key, expected string) (T, bool) {
	var none T
	v, ok := t.value(key)
	if !ok {
		return none, false
	}
	typed, ok := v.(T)
	if !ok {
		t.problem(key, "%s must be %s, not %s", t.full(key), expected, kindOf(v))
	}
	return typed, ok
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case []any, []map[string]any:
		return "an array"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}

// text returns a string; a missing one is the default.
func (t *table) text(key, otherwise string) string {
	s, ok := read[string](t, key, "a string")
	switch {
	case !ok:
		return otherwise
	case strings.ContainsRune(s, 0):
		t.problem(key, "%s must not contain a NUL character", t.full(key))
		return otherwise
	}
	return s
}

// present reports that key has a value, and if not that it needs one.
func (t *table) present(key string) bool {
	t.known = append(t.known, key)
	if _, ok := t.values[key]; ok {
		return true
	}
	t.doc.problem(t.line, "%s is missing", t.full(key))
	return false
}

func (t *table) boolean(key string) bool {
	b, _ := read[bool](t, key, "true or false")
	return b
}

// duration reads a time span such as "30s"; a missing one is the default.
func (t *table) duration(key string, otherwise, least, most time.Duration) time.Duration {
	text := t.text(key, otherwise.String())
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		t.problem(key, "%s must be a time between %v and %v such as \"30s\", not %q", t.full(key), least, most, text)
		return otherwise
	}
	return d
}

// texts reads a table of strings.
func (t *table) texts(key string) map[string]string {
	sub, ok := t.table(key)
	if !ok {
		return nil
	}
	out := map[string]string{}
	for name := range sub.values {
		out[name] = sub.text(name, "")
	}
	return out
}

// table opens a subtable, false if it is not there.
func (t *table) table(key string) (*table, bool) {
	values, ok := read[map[string]any](t, key, "a table")
	if !ok {
		return nil, false
	}
	return &table{doc: t.doc, name: t.full(key), path: keyPath(t.path, key), line: t.lineOf(key), values: values}, true
}

// element is a member of an array.
type element struct {
	line  int
	path  string
	value any
}

// array opens an array, nil if it is not there.
func (t *table) array(key string) []element {
	// The decoder has a type of its own for arrays of tables.
	if tables, ok := t.values[key].([]map[string]any); ok {
		values := make([]any, len(tables))
		for i, v := range tables {
			values[i] = v
		}
		t.values[key] = values
	}
	values, _ := read[[]any](t, key, "an array")
	var elements []element
	for i, v := range values {
		path := elementPath(keyPath(t.path, key), i)
		line, ok := t.doc.lines[path]
		if !ok {
			line = t.lineOf(key)
		}
		elements = append(elements, element{line: line, path: path, value: v})
	}
	return elements
}
