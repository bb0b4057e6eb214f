package pkcs11

import "github.com/kmsbroker/kmsbroker/hsm/cryptoki"

func sessions(s *script) {
	s.do("parallel", c(cryptoki.OpenSession, s.slot, 0))
	s.do("no such slot", c(cryptoki.OpenSession, noSlot, cryptoki.CKF_SERIAL_SESSION))
	ro := s.do("read-only", c(cryptoki.OpenSession, s.slot, cryptoki.CKF_SERIAL_SESSION)).Numbers[0]
	rw := s.do("read-write", c(cryptoki.OpenSession, s.slot, cryptoki.CKF_SERIAL_SESSION|cryptoki.CKF_RW_SESSION)).Numbers[0]
	s.do("read-only", c(cryptoki.GetSessionInfo, ro))
	s.do("read-write", c(cryptoki.GetSessionInfo, rw))
	s.do("no session", c(cryptoki.GetSessionInfo, noHandle))
	s.do("0", c(cryptoki.GetSessionInfo, 0))
	s.check("its slot", s.quietly(c(cryptoki.GetSessionInfo, ro)).Numbers[0] == s.slot)
	s.do("read-only", c(cryptoki.CloseSession, ro))
	s.do("twice", c(cryptoki.CloseSession, ro))
	s.do("closed", c(cryptoki.GetSessionInfo, ro))
	s.do("of no slot", c(cryptoki.CloseAllSessions, noSlot))
	s.do("of the slot", c(cryptoki.CloseAllSessions, s.slot))
	s.do("all closed", c(cryptoki.GetSessionInfo, rw))
	s.do("there is none", c(cryptoki.CloseAllSessions, s.slot))
	// What a closed session began does not haunt the next one, which may have its number.
	one := s.user()
	s.quietly(c(cryptoki.DigestInit, one).mech(&cryptoki.Mechanism{Type: cryptoki.CKM_SHA256}))
	s.quietly(c(cryptoki.CloseSession, one))
	s.do("begun in another session", c(cryptoki.DigestUpdate, s.user()).data(text))
}

func login(s *script) {
	ro, rw := s.open(0), s.open(cryptoki.CKF_RW_SESSION)
	s.do("nobody", c(cryptoki.Logout, rw))
	s.do("no such user", c(cryptoki.Login, rw, 9).data(s.pin))
	s.do("context specific", c(cryptoki.Login, rw, cryptoki.CKU_CONTEXT_SPECIFIC).data(s.pin))
	s.do("no session", c(cryptoki.Login, noHandle, cryptoki.CKU_USER).data(s.pin))
	s.do("officer beside a read-only session", c(cryptoki.Login, rw, cryptoki.CKU_SO).data(s.soPIN))
	s.do("before", c(cryptoki.GetSessionInfo, rw))
	s.do("user", c(cryptoki.Login, rw, cryptoki.CKU_USER).data(s.pin))
	s.do("read-write after", c(cryptoki.GetSessionInfo, rw))
	s.do("read-only after", c(cryptoki.GetSessionInfo, ro))
	s.do("twice", c(cryptoki.Login, rw, cryptoki.CKU_USER).data(s.pin))
	s.do("another", c(cryptoki.Login, rw, cryptoki.CKU_SO).data(s.soPIN))
	s.do("a session of later", c(cryptoki.GetSessionInfo, s.open(0)))
	s.do("token with a user", c(cryptoki.GetTokenInfo, s.slot))
	s.do("user", c(cryptoki.Logout, ro))
	s.do("after logout", c(cryptoki.GetSessionInfo, rw))
	s.do("no session", c(cryptoki.Logout, noHandle))
	s.do("wrong PIN", c(cryptoki.Login, rw, cryptoki.CKU_USER).data([]byte("wrong-pin")))
	s.quietly(c(cryptoki.Logout, rw))
	s.do("no PIN", c(cryptoki.Login, rw, cryptoki.CKU_USER))
	s.quietly(c(cryptoki.Logout, rw))
	s.do("empty PIN", c(cryptoki.Login, rw, cryptoki.CKU_USER).data([]byte{}))
	s.quietly(c(cryptoki.Logout, rw))
	// The last session takes the login with it.
	s.do("again", c(cryptoki.Login, rw, cryptoki.CKU_USER).data(s.pin))
	s.quietly(c(cryptoki.CloseAllSessions, s.slot))
	rw = s.open(cryptoki.CKF_RW_SESSION)
	s.do("after all closed", c(cryptoki.GetSessionInfo, rw))
	s.do("officer", c(cryptoki.Login, rw, cryptoki.CKU_SO).data(s.soPIN))
	s.do("officer", c(cryptoki.GetSessionInfo, rw))
	s.do("read-only beside the officer", c(cryptoki.OpenSession, s.slot, cryptoki.CKF_SERIAL_SESSION))
	s.do("officer", c(cryptoki.Logout, rw))
}

// administration changes nothing: each call is one that the token refuses.
func administration(s *script) {
	session := s.user()
	label := make([]byte, 32)
	cryptoki.Pad(label, "another")
	s.do("with a session", c(cryptoki.InitToken, s.slot).data(s.soPIN, label))
	s.do("as the user", c(cryptoki.InitPIN, session).data(s.pin))
	s.do("wrong PIN", c(cryptoki.SetPIN, session).data([]byte("wrong-pin"), s.pin))
	s.do("short PIN", c(cryptoki.SetPIN, session).data(s.pin, []byte("1")))
	s.do("no PINs", c(cryptoki.SetPIN, session))
	s.do("no PIN", c(cryptoki.InitPIN, session))
	s.do("no session", c(cryptoki.SetPIN, noHandle).data(s.pin, s.pin))
	s.do("no session", c(cryptoki.InitPIN, noHandle).data(s.pin))
	s.quietly(c(cryptoki.CloseAllSessions, s.slot))
	s.do("wrong PIN", c(cryptoki.InitToken, s.slot).data([]byte("wrong-pin"), label))
	s.do("no such slot", c(cryptoki.InitToken, noSlot).data(s.soPIN, label))
	s.do("it was not", c(cryptoki.GetTokenInfo, s.slot))
}
