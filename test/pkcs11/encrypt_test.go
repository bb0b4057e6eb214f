package pkcs11

import (
	"bytes"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

func encrypt(s *script) {
	session := s.user()
	key := s.create(session, aesTemplate())
	rsaPublic, rsaPrivate := s.create(session, s.keys.rsaPublic()), s.create(session, s.keys.rsaPrivate())
	s.refusals(encryption, session, key, ecb())
	s.refusals(decryption, session, key, ecb())
	s.try("key of another type", encryption, session, rsaPublic, ecb())
	s.try("key of another type", decryption, session, rsaPrivate, ecb())
	forbidden := s.create(session, aesTemplate(cryptoki.CKA_ENCRYPT, false, cryptoki.CKA_DECRYPT, false))
	s.try("key that may not", encryption, session, forbidden, ecb())
	s.try("key that may not", decryption, session, forbidden, ecb())

	iv := cryptoki.Bytes("an IV of 16 byte")
	gcm := &cryptoki.GCM{IV: iv[:12], IVBits: 96, AAD: []byte("and more"), TagBits: 128}
	ctr := &cryptoki.CTR{CounterBits: 128, Counter: [16]byte(iv)}
	for _, m := range []struct {
		name      string
		mechanism uint64
		parameter cryptoki.Parameter
	}{
		{"AES-ECB", cryptoki.CKM_AES_ECB, nil},
		{"AES-CBC", cryptoki.CKM_AES_CBC, iv},
		{"AES-CBC-PAD", cryptoki.CKM_AES_CBC_PAD, iv},
		{"AES-CTR", cryptoki.CKM_AES_CTR, ctr},
		{"AES-GCM", cryptoki.CKM_AES_GCM, gcm},
	} {
		mechanism := &cryptoki.Mechanism{Type: m.mechanism, Parameter: m.parameter}
		ciphertext := s.operate(m.name, encryption, session, key, mechanism, text, true, true)
		if ciphertext == nil {
			ciphertext = text
		}
		s.check(m.name+" comes back", bytes.Equal(s.operate(m.name+" back", decryption, session, key, mechanism, ciphertext, true, true), text))
	}
	s.quietly(c(cryptoki.EncryptInit, session, key).mech(ecb()))
	s.do("not a whole block", c(cryptoki.Encrypt, session).data(text[:5]).room(64))
	s.do("after not a whole block", c(cryptoki.Encrypt, session).data(text).room(64))
	s.abandon(encryption, session)
	s.quietly(c(cryptoki.DecryptInit, session, key).mech(ecb()))
	s.do("not a whole block", c(cryptoki.Decrypt, session).data(text[:5]).room(64))
	s.abandon(decryption, session)

	pkcs, oaep := mech(cryptoki.CKM_RSA_PKCS), &cryptoki.Mechanism{Type: cryptoki.CKM_RSA_PKCS_OAEP, Parameter: &cryptoki.OAEP{
		Hash: cryptoki.CKM_SHA_1, MGF: mgf1SHA1, Source: cryptoki.CKZ_DATA_SPECIFIED,
	}}
	for _, m := range []struct {
		name      string
		mechanism *cryptoki.Mechanism
	}{{"RSA-PKCS", pkcs}, {"RSA-OAEP", oaep}} {
		ciphertext := s.operate(m.name, encryption, session, rsaPublic, m.mechanism, text, false, false)
		s.check(m.name+" comes back", bytes.Equal(s.operate(m.name+" back", decryption, session, rsaPrivate, m.mechanism, ciphertext, true, false), text))
	}
	s.operate("RSA-X-509", encryption, session, rsaPublic, mech(cryptoki.CKM_RSA_X_509), append(make([]byte, 224), text...), true, false)
	s.quietly(c(cryptoki.DecryptInit, session, rsaPrivate).mech(pkcs))
	s.do("not a ciphertext", c(cryptoki.Decrypt, session).data(make([]byte, 256)).room(256))
	s.abandon(decryption, session)
	s.quietly(c(cryptoki.EncryptInit, session, rsaPublic).mech(pkcs))
	s.do("too long for RSA", c(cryptoki.Encrypt, session).data(make([]byte, 250)).room(256))
	s.abandon(encryption, session)
}
