package pkcs11

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Slot is a slot with an initialised token in it. Slot numbers move between
// runs, so they are looked up anew after each C_Initialize.
type Slot struct {
	ID          uint
	Description string // of the slot; empty when it does not answer
	Label       string // of the token
	Serial      string // of the token

	token p11.TokenInfo
}

// identity is the token's own, under which attempts to log in are remembered.
func (s Slot) identity() hsm.TokenID {
	return hsm.TokenID{
		Manufacturer: clean(s.token.ManufacturerID),
		Model:        clean(s.token.Model),
		Serial:       cmp.Or(clean(s.token.SerialNumber), clean(s.token.Label)),
	}
}

// awaitSlot is findSlot for a token that may take a while to appear.
func awaitSlot(ctx context.Context, module *p11.Ctx, config Config) (Slot, error) {
	wait, stop := context.WithTimeout(ctx, config.TokenWait)
	defer stop()
	for {
		const pause = 250 * time.Millisecond
		slot, err := findSlot(module, config)
		if !errors.Is(err, hsm.NotFound) {
			return slot, err
		}
		select {
		case <-time.After(pause):
		case <-wait.Done():
			return Slot{}, err
		}
	}
}

// findSlot returns the one slot whose token has the serial and the label that
// are configured.
func findSlot(module *p11.Ctx, config Config) (Slot, error) {
	serial, label := config.TokenSerial, config.TokenLabel
	if serial == "" && label == "" {
		return Slot{}, hsm.Errorf(hsm.Misconfigured, "neither the serial nor the label of a token is configured")
	}
	all, absent, refused, err := slots(module)
	if err != nil {
		return Slot{}, err
	}
	var found []Slot
	for _, s := range all {
		if (serial == "" || s.Serial == serial) && (label == "" || s.Label == label) {
			found = append(found, s)
		}
	}
	if config.Choose != nil && len(found) > 0 {
		if found, err = config.Choose(all, found); err != nil {
			return Slot{}, err
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Slot{}, hsm.Errorf(hsm.Misconfigured, "%d tokens have %s: configure the serial of the right one: %s",
			len(found), wanted(serial, label), list(found))
	case refused != nil:
		return Slot{}, deviceError(refused, "look for the token with %s: a slot does not answer; the others have: %s",
			wanted(serial, label), cmp.Or(list(all), "none"))
	case absent != nil && len(all) == 0:
		e := deviceError(absent, "look for the token with %s: no slot has a token, although the library lists some", wanted(serial, label))
		e.Reason = hsm.NotFound
		return Slot{}, e
	default:
		return Slot{}, hsm.Errorf(hsm.NotFound, "no token with %s is present; present are: %s",
			wanted(serial, label), cmp.Or(list(all), "none"))
	}
}

// slots lists the slots with initialised tokens. Empty ones are left out: Luna
// shows placeholders. absent is the answer of one of these, and refused that of a
// slot that is in other trouble.
func slots(module *p11.Ctx) (all []Slot, absent, refused, err error) {
	ids, err := module.GetSlotList(true)
	if err != nil {
		return nil, nil, nil, deviceError(err, "list slots")
	}
	for _, id := range ids {
		token, err := module.GetTokenInfo(id)
		switch {
		case hasCode(err, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_SLOT_ID_INVALID):
			absent = err
			continue
		case err != nil:
			refused = err
			continue
		case token.Flags&p11.CKF_TOKEN_INITIALIZED == 0:
			continue
		}
		s := Slot{ID: id, Label: clean(token.Label), Serial: clean(token.SerialNumber), token: token}
		if info, err := module.GetSlotInfo(id); err == nil {
			s.Description = clean(info.SlotDescription)
		}
		all = append(all, s)
	}
	return all, absent, refused, nil
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

func list(all []Slot) string {
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
		fmt.Fprintf(&b, "label %q serial %q", s.Label, s.Serial)
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
