package authz

import (
	"path"
	"strings"
	"testing"
)

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"?", "", false}, {"tls-*", "tls-", true},
		{"*", "a/b", true}, {"?", "/", true}, {"[^a]", "/", true}, {"tls-*", "tls-a/b/c", true}, {"a*/c", "a/b/c", true}, {"a*/c", "a/b/d", false},
		{"*", "\xff\x00", true}, {"?", "\xff", true}, {"[^a]", "\xff", true}, {"[\ufffd]", "\xff", false}, {"\ufffd", "\xff", false}, {"[\x00-\U0010ffff]", "\xff", false},
		{"??", "é", false}, {"?", "é", true}, {"*?", "é", true}, {"*é", "aé", true}, {"?*?", "é", false}, {"*[^é]", "aé", false}, {"*[^é]", "éa", true},
		{"[x", "[x", true}, {"[", "a", false}, {`a\`, "a", false}, {`a\`, `a\`, true}, {`\*`, "*", true}, {`\*`, "a", false}, {"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXbYbZ", false},
	} {
		if got := globAny([]string{tt.pattern}, tt.name); got != tt.want {
			t.Errorf("%q and %q: %v", tt.pattern, tt.name, got)
		}
		if got := globAny([]string{tt.pattern}, []byte(tt.name)); got != tt.want {
			t.Errorf("%q and bytes %q: %v", tt.pattern, tt.name, got)
		}
	}
}

// TestGlobAgreesWithPath: but for slashes it is path.Match, which after a star also looks
// at half a character, as a negated class lets it.
func TestGlobAgreesWithPath(t *testing.T) {
	d := newDice(t)
	text := func(alphabet []string, most int) string {
		var b strings.Builder
		for range d.IntN(most + 1) {
			b.WriteString(pick(d, alphabet))
		}
		return b.String()
	}
	seen := map[bool]int{}
	for range 300_000 {
		pattern := text([]string{"*", "*", "?", "[", "]", "^", "-", `\`, "a", "b", "a", "b", "é"}, 8)
		if _, err := path.Match(pattern, ""); err != nil {
			continue // config refuses it
		}
		name := text([]string{"a", "b", "é", "-", "^", "*"}, 6)
		if strings.Contains(pattern, "[^") && strings.Contains(name, "é") {
			continue
		}
		want, _ := path.Match(pattern, name)
		if seen[want]++; glob(pattern, name) != want || glob(pattern, []byte(name)) != want {
			t.Fatalf("%q and %q: path.Match says %v", pattern, name, want)
		}
	}
	if seen[true] < 5000 || seen[false] < 5000 {
		t.Errorf("the random patterns show too little: %v", seen)
	}
}

// TestGlobIsQuick: nobody slows the broker down with a label.
func TestGlobIsQuick(t *testing.T) {
	if glob(strings.Repeat("*a", 1000)+"b", strings.Repeat("a", 10_000)) {
		t.Error("it matches")
	}
}

// FuzzGlob: no pattern and no label is too much.
func FuzzGlob(f *testing.F) {
	f.Add("a*[b-é]?\\*", "a/\xffb*")
	f.Add("[^", "\xf0")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if glob(pattern, name) != glob(pattern, []byte(name)) {
			t.Error("a string and its bytes differ")
		}
		if !glob("*", name) || !glob(pattern+"*", "") && strings.Trim(pattern, "*") == "" {
			t.Error("a star does not match")
		}
	})
}
