package pkcs11

import (
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

const noSlot, noHandle = 0xdead, 0xdead

// lifecycle is what comes before the other chapters: the library is not initialised yet.
func lifecycle(s *script) {
	s.do("too early", c(cryptoki.GetInfo))
	s.do("too early", c(cryptoki.GetSlotList).ask())
	s.do("too early", c(cryptoki.GetSessionInfo, 1))
	s.do("too early", c(cryptoki.Finalize))
	s.do("first", c(cryptoki.Initialize))
	s.do("again", c(cryptoki.Initialize))
	slots := s.quietly(c(cryptoki.GetSlotList).room(64)).List
	session := s.quietly(c(cryptoki.OpenSession, append(slots, 0)[0], cryptoki.CKF_SERIAL_SESSION)).Numbers[0]
	s.do("first", c(cryptoki.Finalize))
	s.do("again", c(cryptoki.Finalize))
	s.do("too late", c(cryptoki.GetInfo))
	s.do("after the end", c(cryptoki.Initialize))
	s.do("of before the end", c(cryptoki.GetSessionInfo, session))
}

func general(s *script) {
	s.do("of the library", c(cryptoki.GetInfo))
	s.do("how many slots", c(cryptoki.GetSlotList).ask())
	present := c(cryptoki.GetSlotList)
	present.Flag = true
	s.do("how many with tokens", present.ask())
	s.do("no room", present.room(0))
	s.do("with tokens", present.room(16))
	s.do("slot", c(cryptoki.GetSlotInfo, s.slot))
	s.do("no such slot", c(cryptoki.GetSlotInfo, noSlot))
	s.do("token", c(cryptoki.GetTokenInfo, s.slot))
	s.do("no such token", c(cryptoki.GetTokenInfo, noSlot))
	s.do("no event", c(cryptoki.WaitForSlotEvent, cryptoki.CKF_DONT_BLOCK))
	s.do("blocking", c(cryptoki.WaitForSlotEvent, 0))
	s.legacy("with a session", s.open(0))
	s.legacy("no session", noHandle)
}

// legacy makes the calls about functions that run in parallel, which none does.
func (s *script) legacy(step string, session uint64) {
	status, cancel := s.module.Legacy(session)
	s.note("C_GetFunctionStatus: "+step, status.String())
	s.note("C_CancelFunction: "+step, cancel.String())
}

func mechanisms(s *script) {
	s.do("how many", c(cryptoki.GetMechanismList, s.slot).ask())
	s.do("too little room", c(cryptoki.GetMechanismList, s.slot).room(3))
	s.do("no such slot", c(cryptoki.GetMechanismList, noSlot).ask())
	listed := map[uint64]bool{}
	for _, m := range s.quietly(c(cryptoki.GetMechanismList, s.slot).room(1000)).List {
		listed[m] = true
	}
	for m := range uint64(0x2200) { // SoftHSM has none beyond
		name := cryptoki.MechanismName(m)
		if strings.HasPrefix(name, "CKM_0x") {
			continue // nobody has it
		}
		s.do(name, c(cryptoki.GetMechanismInfo, s.slot, m))
		s.check(name+" is listed", listed[m])
	}
	s.do("unknown", c(cryptoki.GetMechanismInfo, s.slot, 0x4242))
	s.do("of a vendor", c(cryptoki.GetMechanismInfo, s.slot, cryptoki.CKM_VENDOR_DEFINED|1))
	s.do("of no slot", c(cryptoki.GetMechanismInfo, noSlot, cryptoki.CKM_RSA_PKCS))
}
