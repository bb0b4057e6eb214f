package lunaclient

import (
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
)

// virtualSlot is how the description of the virtual slot of a high-availability
// group begins: "HA Virtual Card Slot" (Luna 7.1, "Managing and Troubleshooting
// Your HA Groups"; ThalesGroup/luna-samples, Python-PKCS11_Samples/README.md).
const virtualSlot = "HA Virtual"

// Chooser returns the hook that chooses among the slots of a group. It prefers
// the virtual slot and refuses a member: what is made on a member behind the
// group's back is not replicated, and is in the way when the group synchronises.
func Chooser(groups []chrystoki.HAGroup) func(present, matching []pkcs11.Slot) ([]pkcs11.Slot, error) {
	isVirtual := func(s pkcs11.Slot) bool {
		return strings.HasPrefix(s.Description, virtualSlot) ||
			slices.ContainsFunc(groups, func(g chrystoki.HAGroup) bool {
				return g.Serial == s.Serial && !slices.Contains(g.Members, s.Serial)
			})
	}
	return func(present, matching []pkcs11.Slot) ([]pkcs11.Slot, error) {
		var virtual []pkcs11.Slot
		for _, s := range matching {
			if isVirtual(s) {
				virtual = append(virtual, s)
			}
		}
		if len(virtual) > 0 {
			return virtual, nil
		}
		for _, s := range matching {
			if err := refuseMember(s, present, groups, isVirtual); err != nil {
				return nil, err
			}
		}
		return matching, nil
	}
}

func refuseMember(s pkcs11.Slot, present []pkcs11.Slot, groups []chrystoki.HAGroup, isVirtual func(pkcs11.Slot) bool) error {
	for _, other := range present {
		if isVirtual(other) && other.Label == s.Label {
			return member(s, other.Label, other.Serial)
		}
	}
	for _, group := range groups {
		if slices.Contains(group.Members, s.Serial) {
			return member(s, group.Label, group.Serial)
		}
	}
	return nil
}

func member(s pkcs11.Slot, label, serial string) error {
	return hsm.Errorf(hsm.Misconfigured,
		"token %q with serial %q is a member of the high-availability group %q: configure the group's own serial %q, or take the member out of the group",
		s.Label, s.Serial, label, serial)
}
