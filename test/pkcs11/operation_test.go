package pkcs11

import (
	"bytes"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

func mech(mechanism uint64) *cryptoki.Mechanism { return &cryptoki.Mechanism{Type: mechanism} }

func ecb() *cryptoki.Mechanism { return mech(cryptoki.CKM_AES_ECB) }

// family is four functions that go together: begin, all at once, in parts, and the end.
type family struct {
	init, single, update, final cryptoki.Function
	key                         bool // the first takes one
	verify                      bool // the end takes a signature and gives nothing
}

var (
	encryption   = family{cryptoki.EncryptInit, cryptoki.Encrypt, cryptoki.EncryptUpdate, cryptoki.EncryptFinal, true, false}
	decryption   = family{cryptoki.DecryptInit, cryptoki.Decrypt, cryptoki.DecryptUpdate, cryptoki.DecryptFinal, true, false}
	digesting    = family{cryptoki.DigestInit, cryptoki.Digest, cryptoki.DigestUpdate, cryptoki.DigestFinal, false, false}
	signing      = family{cryptoki.SignInit, cryptoki.Sign, cryptoki.SignUpdate, cryptoki.SignFinal, true, false}
	verification = family{cryptoki.VerifyInit, cryptoki.Verify, cryptoki.VerifyUpdate, cryptoki.VerifyFinal, true, true}
)

// outputs reports whether a part of the input gives a part of the output.
func (f family) outputs() bool {
	return f.update == cryptoki.EncryptUpdate || f.update == cryptoki.DecryptUpdate
}

// refusals are what each family refuses, whatever the mechanism.
func (s *script) refusals(f family, session, key uint64, m *cryptoki.Mechanism) {
	end := func() { s.abandon(f, session) }
	last := func(fn cryptoki.Function, session uint64) call {
		if f.verify && fn == f.single {
			return c(fn, session).data(text, make([]byte, 32))
		}
		if f.verify {
			return c(fn, session).data(make([]byte, 32))
		}
		if fn == f.single {
			return c(fn, session).data(text).room(512)
		}
		return c(fn, session).room(512)
	}
	part := func(session uint64) call {
		if f.outputs() {
			return c(f.update, session).data(text).room(512)
		}
		return c(f.update, session).data(text)
	}
	s.do("not begun", last(f.single, session))
	s.do("not begun", part(session))
	s.do("not begun", last(f.final, session))
	s.do("no session", c(f.init, noHandle, key).mech(m))
	s.do("no session", last(f.single, noHandle))
	s.do("no session", part(noHandle))
	s.do("no session", last(f.final, noHandle))
	s.do("no mechanism", c(f.init, session, key))
	s.do("wrong mechanism", c(f.init, session, key).mech(mech(cryptoki.CKM_RSA_PKCS_KEY_PAIR_GEN)))
	s.do("unknown mechanism", c(f.init, session, key).mech(mech(0x4242)))
	end()
	if f.key {
		s.do("no key", c(f.init, session, noHandle).mech(m))
	}
	s.do("begun", c(f.init, session, key).mech(m))
	s.do("begun twice", c(f.init, session, key).mech(m))
	s.do("no mechanism ends it", c(f.init, session, key))
	s.do("after no mechanism", part(session))
	end()
	s.quietly(c(f.init, session, key).mech(m))
	s.do("without data", c(f.single, session).room(512))
	end()
	s.quietly(c(f.init, session, key).mech(m))
	s.do("a part without data", c(f.update, session).room(512))
	end()
	s.quietly(c(f.init, session, key).mech(m))
	s.do("a part", part(session))
	s.do("all at once after a part", last(f.single, session))
	end()
}

// abandon ends whatever is active, by asking for its end.
func (s *script) abandon(f family, session uint64) {
	if f.verify {
		s.quietly(c(f.final, session).data(make([]byte, 32)))
		s.quietly(c(f.single, session).data(text, make([]byte, 32)))
		return
	}
	s.quietly(c(f.final, session).room(1024))
	s.quietly(c(f.single, session).data(text).room(1024))
}

// try begins an operation and abandons it.
func (s *script) try(name string, f family, session, key uint64, m *cryptoki.Mechanism) {
	s.do(name, c(f.init, session, key).mech(m))
	s.abandon(f, session)
}

// operate does one operation in all ways and returns what came out.
func (s *script) operate(name string, f family, session, key uint64, m *cryptoki.Mechanism, input []byte, same, parts bool) []byte {
	do := s.do
	if !same {
		do = s.random
	}
	begin := c(f.init, session, key).mech(m)
	s.do(name, begin)
	s.do(name+", size", c(f.single, session).data(input).ask())
	s.do(name+", too small", c(f.single, session).data(input).room(1))
	out := do(name, c(f.single, session).data(input).room(1024)).Data
	s.do(name+", ended", c(f.single, session).data(input).room(1024))
	if !parts {
		return out
	}
	s.do(name+", in parts", begin)
	var pieces []byte
	half := len(input) / 2
	if f.outputs() {
		s.do(name+", size of a part", c(f.update, session).data(input[:half]).ask())
		s.do(name+", too small for a part", c(f.update, session).data(input[:half]).room(1))
		pieces = append(pieces, do(name+", part", c(f.update, session).data(input[:half]).room(1024)).Data...)
		pieces = append(pieces, do(name+", second part", c(f.update, session).data(input[half:]).room(1024)).Data...)
	} else {
		s.do(name+", part", c(f.update, session).data(input[:half]))
		s.do(name+", empty part", c(f.update, session).data([]byte{}))
		s.do(name+", second part", c(f.update, session).data(input[half:]))
	}
	s.do(name+", size of the end", c(f.final, session).ask())
	s.do(name+", too small for the end", c(f.final, session).room(1))
	pieces = append(pieces, do(name+", end", c(f.final, session).room(1024)).Data...)
	s.do(name+", ended in parts", c(f.final, session).room(1024))
	if same {
		s.check(name+", in parts as at once", bytes.Equal(out, pieces))
	}
	return out
}
