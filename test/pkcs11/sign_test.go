package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

func sign(s *script) {
	session := s.user()
	public, private := s.create(session, s.keys.rsaPublic()), s.create(session, s.keys.rsaPrivate())
	hmac, aes := s.create(session, secretTemplate()), s.create(session, aesTemplate())
	s.refusals(signing, session, private, mech(cryptoki.CKM_SHA256_RSA_PKCS))
	s.refusals(verification, session, public, mech(cryptoki.CKM_SHA256_RSA_PKCS))
	s.try("key of another type", signing, session, hmac, mech(cryptoki.CKM_SHA256_RSA_PKCS))
	s.try("key of another type", verification, session, hmac, mech(cryptoki.CKM_SHA256_RSA_PKCS))
	s.try("public key", signing, session, public, mech(cryptoki.CKM_SHA256_RSA_PKCS))
	forbidden := s.create(session, s.keys.rsaPrivate(cryptoki.CKA_SIGN, false))
	s.try("key that may not", signing, session, forbidden, mech(cryptoki.CKM_SHA256_RSA_PKCS))

	digest := sha256.Sum256(text)
	for _, m := range []struct {
		name            string
		mechanism       uint64
		signer, checker uint64
		input           []byte
		parts           bool
	}{
		{"RSA-PKCS", cryptoki.CKM_RSA_PKCS, private, public, digest[:], false},
		{"RSA-X-509", cryptoki.CKM_RSA_X_509, private, public, append(make([]byte, 224), text...), false},
		{"SHA1-RSA-PKCS", cryptoki.CKM_SHA1_RSA_PKCS, private, public, text, true},
		{"SHA224-RSA-PKCS", cryptoki.CKM_SHA224_RSA_PKCS, private, public, text, true},
		{"SHA256-RSA-PKCS", cryptoki.CKM_SHA256_RSA_PKCS, private, public, text, true},
		{"SHA512-RSA-PKCS", cryptoki.CKM_SHA512_RSA_PKCS, private, public, text, true},
		{"SHA256-HMAC", cryptoki.CKM_SHA256_HMAC, hmac, hmac, text, true},
		{"AES-CMAC", cryptoki.CKM_AES_CMAC, aes, aes, text, true},
	} {
		signature := s.operate(m.name, signing, session, m.signer, mech(m.mechanism), m.input, true, m.parts)
		s.verify(m.name, session, m.checker, mech(m.mechanism), m.input, signature, m.parts)
	}
	pss := &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_RSA_PKCS_PSS, Parameter: &cryptoki.PSS{
		Hash: cryptoki.CKM_SHA256, MGF: mgf1SHA256, SaltLength: 32,
	}}
	signature := s.operate("SHA256-RSA-PKCS-PSS", signing, session, private, pss, text, false, true)
	s.verify("SHA256-RSA-PKCS-PSS", session, public, pss, text, signature, true)
	s.check("SHA256-RSA-PKCS-PSS is right", rsa.VerifyPSS(&s.keys.rsa.PublicKey, crypto.SHA256, digest[:], signature, nil) == nil)
	raw := &cryptoki.Mechanism{Type: cryptoki.CKM_RSA_PKCS_PSS, Parameter: pss.Parameter}
	signature = s.operate("RSA-PKCS-PSS", signing, session, private, raw, digest[:], false, false)
	s.check("RSA-PKCS-PSS is right", rsa.VerifyPSS(&s.keys.rsa.PublicKey, crypto.SHA256, digest[:], signature, nil) == nil)
	wrong := &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_RSA_PKCS_PSS, Parameter: &cryptoki.PSS{Hash: cryptoki.CKM_SHA_1, MGF: mgf1SHA256, SaltLength: 32}}
	s.try("PSS with two hashes", signing, session, private, wrong)
	s.try("PSS without a parameter", signing, session, private, mech(cryptoki.CKM_SHA256_RSA_PKCS_PSS))
	s.quietly(c(cryptoki.SignInit, session, private).mech(mech(cryptoki.CKM_RSA_PKCS)))
	s.do("too long for RSA", c(cryptoki.Sign, session).data(make([]byte, 250)).room(256))
}

// verify verifies what is right and what is wrong.
func (s *script) verify(name string, session, key uint64, m *cryptoki.Mechanism, input, signature []byte, parts bool) {
	if signature == nil {
		signature = make([]byte, 64)
	}
	init := c(cryptoki.VerifyInit, session, key).mech(m)
	forged := bytes.Clone(signature)
	forged[len(forged)-1] ^= 1
	for _, attempt := range []struct {
		name      string
		signature []byte
	}{{name, signature}, {name + ", forged", forged}, {name + ", short", signature[1:]}, {name + ", empty", []byte{}}} {
		s.quietly(init)
		s.do(attempt.name, c(cryptoki.Verify, session).data(input, attempt.signature))
		s.do(attempt.name+", ended", c(cryptoki.Verify, session).data(input, attempt.signature))
		if !parts {
			continue
		}
		s.quietly(init)
		s.quietly(c(cryptoki.VerifyUpdate, session).data(input[:3]))
		s.quietly(c(cryptoki.VerifyUpdate, session).data(input[3:]))
		s.do(attempt.name, c(cryptoki.VerifyFinal, session).data(attempt.signature))
	}
}

func recovery(s *script) {
	session := s.user()
	public, private := s.create(session, s.keys.rsaPublic()), s.create(session, s.keys.rsaPrivate())
	s.do("not begun", c(cryptoki.SignRecover, session).data(text).room(256))
	s.do("not begun", c(cryptoki.VerifyRecover, session).data(make([]byte, 256)).room(256))
	s.do("no session", c(cryptoki.SignRecoverInit, noHandle, private).mech(mech(cryptoki.CKM_RSA_PKCS)))
	s.do("no session", c(cryptoki.VerifyRecoverInit, noHandle, public).mech(mech(cryptoki.CKM_RSA_PKCS)))
	s.do("RSA-PKCS", c(cryptoki.SignRecoverInit, session, private).mech(mech(cryptoki.CKM_RSA_PKCS)))
	signature := s.do("RSA-PKCS", c(cryptoki.SignRecover, session).data(text).room(256)).Data
	s.do("RSA-PKCS", c(cryptoki.VerifyRecoverInit, session, public).mech(mech(cryptoki.CKM_RSA_PKCS)))
	s.do("RSA-PKCS", c(cryptoki.VerifyRecover, session).data(append(signature, make([]byte, 256-len(signature))...)).room(256))
}

func ellipticCurves(s *script) {
	session := s.user()
	public, private := s.create(session, s.keys.ecPublic()), s.create(session, s.keys.ecPrivate())
	digest := sha256.Sum256(text)
	signature := s.operate("ECDSA", signing, session, private, mech(cryptoki.CKM_ECDSA), digest[:], false, false)
	s.verify("ECDSA", session, public, mech(cryptoki.CKM_ECDSA), digest[:], signature, false)
	half := len(signature) / 2
	r, z := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
	s.check("ECDSA is right", ecdsa.Verify(&s.keys.ec.PublicKey, digest[:], r, z))
	s.try("ECDSA-SHA256", signing, session, private, mech(cryptoki.CKM_ECDSA_SHA256))
	s.try("EC key for RSA", signing, session, private, mech(cryptoki.CKM_RSA_PKCS))
}
