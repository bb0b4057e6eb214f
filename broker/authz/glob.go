package authz

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// globAny reports whether name is one of the patterns or matches one, in the syntax
// of path.Match except that * and ? and classes also match a slash: a label is no
// path, and "*" that denies must leave nothing out. Bytes that are no UTF-8 are
// characters of their own, which only *, ? and a negated class match. A malformed
// pattern matches nothing but itself.
func globAny[T string | []byte](patterns []string, name T) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		return pattern == string(name) || glob(pattern, name) // == copies nothing
	})
}

// glob goes back to the last star only, so that it takes no more than len(pattern)
// times len(name) steps. It allocates nothing.
func glob[T string | []byte](pattern string, name T) bool {
	p, n := 0, 0
	star, from := -1, 0 // where the pattern goes on after the last star, and what that has taken so far
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, from = p, n
			continue
		}
		taken, width := one(pattern[p:], name[n:])
		if taken > 0 {
			p, n = p+taken, n+width
			continue
		}
		if star < 0 {
			return false
		}
		_, width = character(name[from:])
		from += width
		p, n = star, from
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// one compares the first element of a pattern, which is no star, with the start of a
// name that is not empty. It returns how many bytes of each belong together, 0 if
// they do not.
func one[T string | []byte](pattern string, name T) (taken, width int) {
	if pattern == "" {
		return 0, 0
	}
	switch pattern[0] {
	case '?':
		_, width = character(name)
		return 1, width
	case '[':
		c, width := character(name)
		if length, in := class(pattern, c); in {
			return length, width
		}
		return 0, 0
	case '\\':
		if len(pattern) > 1 && pattern[1] == name[0] {
			return 2, 1
		}
		return 0, 0
	}
	if pattern[0] == name[0] {
		return 1, 1
	}
	return 0, 0
}

// noCharacter is a byte that is no UTF-8. No pattern has it.
const noCharacter = -1

func character[T string | []byte](name T) (c rune, width int) {
	c, width = utf8.DecodeRuneInString(string(name[:min(len(name), utf8.UTFMax)]))
	if c == utf8.RuneError && width == 1 {
		c = noCharacter
	}
	return c, width
}

// class compares a character with the class that a pattern begins with, and returns
// how long that is.
func class(pattern string, c rune) (length int, in bool) {
	rest := pattern[1:]
	rest, negated := strings.CutPrefix(rest, "^")
	found := false
	for first := true; ; first = false {
		if strings.HasPrefix(rest, "]") && !first {
			return len(pattern) - len(rest) + 1, found != negated
		}
		low, after, ok := member(rest)
		if !ok {
			return 0, false
		}
		high := low
		if ranged, is := strings.CutPrefix(after, "-"); is {
			if high, after, ok = member(ranged); !ok {
				return 0, false
			}
		}
		found = found || low <= c && c <= high
		rest = after
	}
}

// member reads one character of a class.
func member(text string) (c rune, after string, ok bool) {
	if text == "" || text[0] == '-' || text[0] == ']' {
		return 0, "", false
	}
	if text[0] == '\\' {
		text = text[1:]
	}
	c, width := utf8.DecodeRuneInString(text)
	return c, text[width:], width > 0 && (c != utf8.RuneError || width > 1)
}
