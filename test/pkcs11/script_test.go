package pkcs11

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// script makes the calls of the table of one module and writes down what came back, in
// a form that is the same whatever numbers the module gives to slots and handles.
type script struct {
	module     library
	write      func(record) error
	label      string // of the token
	slot       uint64
	pin, soPIN []byte
	keys       *testKeys
	chapter    string
	deadly     []string        // steps to leave out
	steps      map[string]bool // done
	failed     error           // to write
}

// library is a PKCS#11 library.
type library interface {
	Do(call *cryptoki.Call) *cryptoki.Answer
	Legacy(session uint64) (status, cancel cryptoki.RV)
}

// record is one step.
type record struct {
	Step   string // unique in the table
	Result string
}

// call is a call in the making.
type call cryptoki.Call

// c begins a call. The session or slot comes first.
func c(f cryptoki.Function, numbers ...uint64) call {
	c := call{Function: f}
	copy(c.Numbers[:], numbers)
	return c
}

func (c call) data(data ...[]byte) call { copy(c.Data[:], data); return c }

func (c call) mech(m *cryptoki.Mechanism) call { c.Mechanism = m; return c }

func (c call) with(templates ...[]cryptoki.Attribute) call { copy(c.Templates[:], templates); return c }

// room gives a buffer of n bytes or numbers.
func (c call) room(n uint32) call { c.Room = cryptoki.Room{Size: n}; return c }

// ask gives none, which asks for the size.
func (c call) ask() call { c.Room = cryptoki.Room{Null: true}; return c }

// do makes a call and records its results, which must be the same everywhere.
func (s *script) do(step string, c call) *cryptoki.Answer { return s.record(step, c, false) }

// random is do for results that differ each time: their length is recorded.
func (s *script) random(step string, c call) *cryptoki.Answer { return s.record(step, c, true) }

func (s *script) record(step string, c call, random bool) *cryptoki.Answer {
	step = s.begin(fmt.Sprintf("%s: %s", c.Function, step))
	if slices.Contains(s.deadly, step) {
		return &cryptoki.Answer{}
	}
	answer := s.module.Do((*cryptoki.Call)(&c))
	s.end(step, describe((*cryptoki.Call)(&c), answer, random))
	return answer
}

// begin writes down that a step is about to be done, which may be the last that is heard
// of this process.
func (s *script) begin(step string) string {
	step = s.chapter + ": " + step
	if s.steps[step] {
		panic("two steps are called " + step)
	}
	s.steps[step] = true
	s.end(step, "")
	return step
}

func (s *script) end(step, result string) {
	s.failed = errors.Join(s.failed, s.write(record{step, result}))
}

// quietly makes a call that others have recorded, or that only cleans up.
func (s *script) quietly(c call) *cryptoki.Answer { return s.module.Do((*cryptoki.Call)(&c)) }

// note records what no call answers by itself.
func (s *script) note(step, result string) { s.end(s.begin(step), result) }

// check records whether something holds.
func (s *script) check(step string, holds bool) { s.note(step, fmt.Sprint(holds)) }

// open opens a session that is closed at the end of the chapter.
func (s *script) open(flags uint64) uint64 {
	return s.quietly(c(cryptoki.OpenSession, s.slot, cryptoki.CKF_SERIAL_SESSION|flags)).Numbers[0]
}

// user opens a session and logs in.
func (s *script) user() uint64 {
	session := s.open(cryptoki.CKF_RW_SESSION)
	s.quietly(c(cryptoki.Login, session, cryptoki.CKU_USER).data(s.pin))
	return session
}

// create makes an object for steps to come.
func (s *script) create(session uint64, template []cryptoki.Attribute) uint64 {
	answer := s.quietly(c(cryptoki.CreateObject, session).with(template))
	if answer.RV != cryptoki.CKR_OK {
		s.note(fmt.Sprintf("after %d steps an object cannot be made", len(s.steps)), answer.RV.String())
	}
	return answer.Numbers[0]
}

// describe is an answer as text.
func describe(call *cryptoki.Call, answer *cryptoki.Answer, random bool) string {
	text := []string{answer.RV.String()}
	if call.Function == cryptoki.GetAttributeValue {
		for _, a := range answer.Attributes {
			text = append(text, describeAttribute(a))
		}
	}
	switch {
	case answer.RV == cryptoki.CKR_BUFFER_TOO_SMALL && call.Function != cryptoki.GetAttributeValue:
		return fmt.Sprintf("%s, %d needed", answer.RV, answer.Size)
	case answer.RV != cryptoki.CKR_OK:
		return strings.Join(text, " ")
	}
	switch call.Function {
	case cryptoki.OpenSession, cryptoki.CreateObject, cryptoki.CopyObject, cryptoki.GenerateKey, cryptoki.UnwrapKey, cryptoki.DeriveKey:
		text = append(text, describeHandle(answer.Numbers[0]))
	case cryptoki.GenerateKeyPair:
		text = append(text, describeHandle(answer.Numbers[0]), describeHandle(answer.Numbers[1]))
	case cryptoki.GetSessionInfo:
		text = append(text, fmt.Sprintf("state %d, flags %#x, device error %d", answer.Numbers[1], answer.Numbers[2], answer.Numbers[3]))
	case cryptoki.GetMechanismInfo:
		text = append(text, fmt.Sprintf("from %d to %d, flags %#x", answer.Numbers[0], answer.Numbers[1], answer.Numbers[2]))
	case cryptoki.GetObjectSize:
		text = append(text, fmt.Sprint(answer.Numbers[0]))
	case cryptoki.GetSlotList, cryptoki.GetMechanismList, cryptoki.FindObjects:
		text = append(text, describeList(answer))
	}
	if answer.Info != nil {
		text = append(text, describeInfo(answer.Info))
	}
	switch {
	case answer.Data == nil && answer.Size > 0 && answer.List == nil:
		text = append(text, fmt.Sprintf("%d bytes needed", answer.Size))
	case answer.Data != nil && random:
		text = append(text, fmt.Sprintf("%d bytes", len(answer.Data)))
	case answer.Data != nil:
		text = append(text, describeBytes(answer.Data))
	}
	return strings.Join(text, " ")
}

func describeHandle(handle uint64) string {
	if handle == 0 {
		return "no handle"
	}
	return "a handle"
}

func describeList(answer *cryptoki.Answer) string {
	if answer.List == nil {
		return fmt.Sprintf("%d needed", answer.Size)
	}
	return fmt.Sprintf("%d of them", len(answer.List))
}

// describeBytes is short, and different for different bytes.
func describeBytes(b []byte) string {
	if len(b) <= sha256.Size {
		return fmt.Sprintf("%d bytes %x", len(b), b)
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%d bytes, SHA-256 %s...", len(b), hex.EncodeToString(sum[:8]))
}

func describeAttribute(a cryptoki.Attribute) string {
	switch {
	case a.Length == cryptoki.Unavailable:
		return fmt.Sprintf("[%#x unavailable]", a.Type)
	case a.Nested != nil:
		var all []string
		for _, inner := range a.Nested {
			all = append(all, describeAttribute(inner))
		}
		slices.Sort(all)
		return fmt.Sprintf("[%#x %s]", a.Type, strings.Join(all, " "))
	case len(a.Value) == 0: // p11-kit's client has NULL for what is empty
		return fmt.Sprintf("[%#x length %d]", a.Type, a.Length)
	default:
		return fmt.Sprintf("[%#x %s]", a.Type, describeBytes(a.Value))
	}
}

// describeInfo leaves out what is particular to a token or a moment.
func describeInfo(info any) string {
	switch i := info.(type) {
	case *cryptoki.LibraryInfo:
		return fmt.Sprintf("%v %q %#x %q %v", i.Cryptoki, trim(i.Manufacturer[:]), i.Flags, trim(i.Description[:]), i.Library)
	case *cryptoki.SlotInfo:
		return fmt.Sprintf("%q %#x %v %v", trim(i.Manufacturer[:]), i.Flags, i.Hardware, i.Firmware)
	case *cryptoki.TokenInfo:
		return fmt.Sprintf("%q %q %q serial of %d, flags %#x, counts %d, %v %v, time of %d", trim(i.Label[:]), trim(i.Manufacturer[:]),
			trim(i.Model[:]), len(trim(i.Serial[:])), i.Flags, i.Counts, i.Hardware, i.Firmware, len(trim(i.UTCTime[:])))
	default:
		return fmt.Sprintf("unknown info %T", info)
	}
}

func trim(text []byte) string { return string(bytes.TrimRight(text, " \x00")) }
