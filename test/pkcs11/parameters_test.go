package pkcs11

import (
	"bytes"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

func random(s *script) {
	session := s.open(0)
	first := s.random("32 bytes", c(cryptoki.GenerateRandom, session).room(32)).Data
	second := s.quietly(c(cryptoki.GenerateRandom, session).room(32)).Data
	s.check("never the same", !bytes.Equal(first, second))
	s.random("a lot", c(cryptoki.GenerateRandom, session).room(100_000))
	s.do("nothing", c(cryptoki.GenerateRandom, session).room(0))
	s.do("no buffer", c(cryptoki.GenerateRandom, session).ask())
	s.do("no session", c(cryptoki.GenerateRandom, noHandle).room(32))
	s.do("a seed", c(cryptoki.SeedRandom, session).data([]byte("seed")))
	s.do("an empty seed", c(cryptoki.SeedRandom, session).data([]byte{}))
	s.do("no session", c(cryptoki.SeedRandom, noHandle).data([]byte("seed")))
}

type namedMechanism struct {
	name string
	*cryptoki.Mechanism
}

// parameters are those of mechanisms, as far as a begin tells whether they came through.
func parameters(s *script) {
	session := s.user()
	private := s.create(session, s.keys.rsaPrivate())
	key := s.create(session, aesTemplate())
	oaep := func(p cryptoki.OAEP) *cryptoki.Mechanism {
		return &cryptoki.Mechanism{Type: cryptoki.CKM_RSA_PKCS_OAEP, Parameter: &p}
	}
	for _, m := range []namedMechanism{
		{"OAEP with SHA-256", oaep(cryptoki.OAEP{Hash: cryptoki.CKM_SHA256, MGF: mgf1SHA256, Source: cryptoki.CKZ_DATA_SPECIFIED})},
		{"OAEP with a label", oaep(cryptoki.OAEP{Hash: cryptoki.CKM_SHA_1, MGF: mgf1SHA1, Source: cryptoki.CKZ_DATA_SPECIFIED, SourceData: []byte("label")})},
		{"OAEP, no source", oaep(cryptoki.OAEP{Hash: cryptoki.CKM_SHA_1, MGF: mgf1SHA1})},
		{"OAEP, nothing", mech(cryptoki.CKM_RSA_PKCS_OAEP)},
	} {
		s.do(m.name, c(cryptoki.DecryptInit, session, private).mech(m.Mechanism))
		s.quietly(c(cryptoki.Decrypt, session).data(make([]byte, 256)).room(256))
	}
	for _, m := range []namedMechanism{
		{"CBC without an IV", mech(cryptoki.CKM_AES_CBC)},
		{"CBC with a short IV", &cryptoki.Mechanism{Type: cryptoki.CKM_AES_CBC, Parameter: cryptoki.Bytes("short")}},
		{"ECB with an IV", &cryptoki.Mechanism{Type: cryptoki.CKM_AES_ECB, Parameter: cryptoki.Bytes("an IV of 16 byte")}},
		{"GCM without", mech(cryptoki.CKM_AES_GCM)},
		{"GCM with a long IV", &cryptoki.Mechanism{Type: cryptoki.CKM_AES_GCM, Parameter: &cryptoki.GCM{IV: make([]byte, 64), IVBits: 512, TagBits: 96}}},
		{"CTR of 32 bits", &cryptoki.Mechanism{Type: cryptoki.CKM_AES_CTR, Parameter: &cryptoki.CTR{CounterBits: 32}}},
	} {
		s.do(m.name, c(cryptoki.EncryptInit, session, key).mech(m.Mechanism))
		s.abandon(encryption, session)
	}
}
