package authz

import (
	"path"
	"slices"
)

// who is whom a grant is about: any of these is enough.
type who struct {
	uids, gids  []uint32
	units, apps []string // names or globs
}

// covers reports whether a grant of that effect is about a caller. An application
// is its name alone. Of a caller whose unit is not known every unit may be the one
// that a grant denies something to, and none the one that it allows it to.
func (w who) covers(c *Caller, effect Effect) bool {
	if c.App != "" {
		return matchAny(w.apps, c.App)
	}
	if slices.Contains(w.uids, c.UID) || slices.Contains(w.gids, c.GID) ||
		slices.ContainsFunc(c.Groups, func(gid uint32) bool { return slices.Contains(w.gids, gid) }) {
		return true
	}
	if c.Unit.Unknown {
		return effect == Deny && len(w.units) > 0
	}
	return c.Unit.Name != "" && matchAny(w.units, c.Unit.Name)
}

// matchAny reports whether name is one of the patterns or matches one. Names of
// units have backslashes, which are something else in a pattern.
func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if pattern == name {
			return true
		}
		ok, err := path.Match(pattern, name)
		return err == nil && ok // config refuses malformed patterns
	})
}
