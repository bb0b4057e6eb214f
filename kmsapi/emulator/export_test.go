package emulator

import (
	"maps"
	"slices"
)

// Actions lists the operations, for tests that must not forget one.
func Actions() []string { return slices.Sorted(maps.Keys(operations)) }

// Absent lists the actions that are refused as unsupported.
func Absent() []string { return slices.Clone(absent) }
