package pkcs11

import (
	"bytes"
	"crypto/sha256"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

func digest(s *script) {
	session := s.open(0)
	s.refusals(digesting, session, 0, mech(cryptoki.CKM_SHA256))
	for _, m := range []struct {
		name      string
		mechanism uint64
	}{
		{"MD5", cryptoki.CKM_MD5},
		{"SHA-1", cryptoki.CKM_SHA_1},
		{"SHA224", cryptoki.CKM_SHA224},
		{"SHA256", cryptoki.CKM_SHA256},
		{"SHA384", cryptoki.CKM_SHA384},
		{"SHA512", cryptoki.CKM_SHA512},
	} {
		s.operate(m.name, digesting, session, 0, mech(m.mechanism), text, true, true)
	}
	sum := sha256.Sum256(text)
	s.quietly(c(cryptoki.DigestInit, session).mech(mech(cryptoki.CKM_SHA256)))
	s.check("SHA-256 is right", bytes.Equal(s.quietly(c(cryptoki.Digest, session).data(text).room(32)).Data, sum[:]))
	s.quietly(c(cryptoki.DigestInit, session).mech(mech(cryptoki.CKM_SHA256)))
	s.do("of nothing", c(cryptoki.Digest, session).data([]byte{}).room(32))
	s.abandon(digesting, session)
	s.quietly(c(cryptoki.DigestInit, session).mech(mech(cryptoki.CKM_SHA256)))
	s.do("of NULL", c(cryptoki.Digest, session).room(32))
	s.abandon(digesting, session)

	session = s.user()
	key := s.create(session, secretTemplate(cryptoki.CKA_SENSITIVE, false, cryptoki.CKA_EXTRACTABLE, true))
	s.do("not begun", c(cryptoki.DigestKey, session, key))
	s.quietly(c(cryptoki.DigestInit, session).mech(mech(cryptoki.CKM_SHA256)))
	s.do("of a key", c(cryptoki.DigestKey, session, key))
	s.do("of no key", c(cryptoki.DigestKey, session, noHandle))
	s.do("with a key", c(cryptoki.DigestFinal, session).room(32))
	s.abandon(digesting, session)
}

func dual(s *script) {
	session := s.user()
	key := s.create(session, aesTemplate())
	hmac := s.create(session, secretTemplate())
	s.do("not begun", c(cryptoki.DigestEncryptUpdate, session).data(text).room(64))
	s.do("not begun", c(cryptoki.DecryptDigestUpdate, session).data(text).room(64))
	s.do("not begun", c(cryptoki.SignEncryptUpdate, session).data(text).room(64))
	s.do("not begun", c(cryptoki.DecryptVerifyUpdate, session).data(text).room(64))
	s.do("no session", c(cryptoki.DigestEncryptUpdate, noHandle).data(text).room(64))
	s.do("no session", c(cryptoki.DecryptDigestUpdate, noHandle).data(text).room(64))
	s.do("no session", c(cryptoki.SignEncryptUpdate, noHandle).data(text).room(64))
	s.do("no session", c(cryptoki.DecryptVerifyUpdate, noHandle).data(text).room(64))
	s.quietly(c(cryptoki.DigestInit, session).mech(mech(cryptoki.CKM_SHA256)))
	s.do("beside a digest", c(cryptoki.EncryptInit, session, key).mech(ecb()))
	s.do("both", c(cryptoki.DigestEncryptUpdate, session).data(text).room(64))
	s.abandon(digesting, session)
	s.abandon(encryption, session)
	s.quietly(c(cryptoki.SignInit, session, hmac).mech(mech(cryptoki.CKM_SHA256_HMAC)))
	s.do("beside a signature", c(cryptoki.EncryptInit, session, key).mech(ecb()))
	s.do("both", c(cryptoki.SignEncryptUpdate, session).data(text).room(64))
	s.abandon(signing, session)
	s.abandon(encryption, session)
}

func operationState(s *script) {
	session := s.user()
	s.do("nothing active", c(cryptoki.GetOperationState, session).ask())
	s.do("no session", c(cryptoki.GetOperationState, noHandle).ask())
	s.quietly(c(cryptoki.DigestInit, session).mech(mech(cryptoki.CKM_SHA256)))
	s.quietly(c(cryptoki.DigestUpdate, session).data(text))
	s.do("size", c(cryptoki.GetOperationState, session).ask())
	s.do("of a digest", c(cryptoki.GetOperationState, session).room(1024))
	s.do("garbage", c(cryptoki.SetOperationState, session, 0, 0).data([]byte("garbage")))
	s.do("no session", c(cryptoki.SetOperationState, noHandle, 0, 0).data([]byte("garbage")))
}
