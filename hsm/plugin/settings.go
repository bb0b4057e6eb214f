package plugin

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Settings reads the settings of a backend and refuses what is wrong with them.
// Ask for every setting that exists, then call Err.
type Settings struct {
	given map[string]string
	known []string
	err   error
}

// ReadSettings starts to read settings.
func ReadSettings(given map[string]string) *Settings { return &Settings{given: given} }

// String returns a setting, empty when it is not given.
func (s *Settings) String(name string) string {
	s.known = append(s.known, name)
	return s.given[name]
}

// Int returns a whole number between least and most, and 0 when the setting is
// not given.
func (s *Settings) Int(name string, least, most int) int {
	value := s.String(name)
	if value == "" {
		return 0
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		s.err = cmp.Or(s.err, error(hsm.Errorf(hsm.Misconfigured, "setting %s: %q is not a whole number from %d to %d", name, value, least, most)))
		return 0
	}
	return n
}

// Err returns the first thing that is wrong: a value, or a setting that nobody
// asked for.
func (s *Settings) Err() error {
	if s.err != nil {
		return s.err
	}
	for _, name := range slices.Sorted(maps.Keys(s.given)) {
		if !slices.Contains(s.known, name) {
			return hsm.Errorf(hsm.Misconfigured, "setting %.64q is unknown; this plugin knows: %s", name, strings.Join(s.known, ", "))
		}
	}
	return nil
}
