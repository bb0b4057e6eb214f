package pkcs11

import (
	"cmp"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// slot is a slot with an initialised token in it. Slot numbers move between
// runs, so they are looked up anew after each C_Initialize.
type slot struct {
	id    uint
	token p11.TokenInfo
}

// findSlot returns the one slot whose token has the serial and the label that
// are given.
func findSlot(module *p11.Ctx, serial, label string) (slot, error) {
	if serial == "" && label == "" {
		return slot{}, hsm.Errorf(hsm.Misconfigured, "neither the serial nor the label of a token is configured")
	}
	all, err := slots(module)
	if err != nil {
		return slot{}, err
	}
	var found []slot
	for _, s := range all {
		if (serial == "" || s.token.SerialNumber == serial) && (label == "" || s.token.Label == label) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return slot{}, hsm.Errorf(hsm.NotFound, "no token with %s is present; present are: %s",
			wanted(serial, label), cmp.Or(list(all), "none"))
	default:
		return slot{}, hsm.Errorf(hsm.Misconfigured, "%d tokens have %s: configure the serial of the right one: %s",
			len(found), wanted(serial, label), list(found))
	}
}

// slots lists the slots with initialised tokens. A slot that cannot be asked is
// left out: Luna shows empty placeholders.
func slots(module *p11.Ctx) ([]slot, error) {
	ids, err := module.GetSlotList(true)
	if err != nil {
		return nil, deviceError(err, "list slots")
	}
	var all []slot
	for _, id := range ids {
		token, err := module.GetTokenInfo(id)
		if err != nil || token.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		all = append(all, slot{id: id, token: token})
	}
	return all, nil
}

func wanted(serial, label string) string {
	switch {
	case label == "":
		return fmt.Sprintf("serial %q", serial)
	case serial == "":
		return fmt.Sprintf("label %q", label)
	default:
		return fmt.Sprintf("serial %q and label %q", serial, label)
	}
}

func list(all []slot) string {
	const most = 16 // enough to recognise a mistake, and bounded
	var b strings.Builder
	for i, s := range all {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(all)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "label %q serial %q", s.token.Label, s.token.SerialNumber)
	}
	return b.String()
}

// limit reads one of the session limits of CK_TOKEN_INFO: 0 and CK_UNAVAILABLE_INFORMATION
// (all bits set) both mean that there is none to honour.
func limit(n uint) int {
	if n == 0 || n == p11.CK_UNAVAILABLE_INFORMATION || n > maxSane {
		return 0
	}
	return int(n)
}

// maxSane is more sessions than any device has.
const maxSane = 1 << 20

func version(v p11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
