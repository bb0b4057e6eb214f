package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

func generate(s *script) {
	session, ro := s.user(), s.open(0)
	aesGen, rsaGen, ecGen := mech(cryptoki.CKM_AES_KEY_GEN), mech(cryptoki.CKM_RSA_PKCS_KEY_PAIR_GEN), mech(cryptoki.CKM_EC_KEY_PAIR_GEN)
	length := attrs(cryptoki.CKA_VALUE_LEN, uint64(32), cryptoki.CKA_TOKEN, false, cryptoki.CKA_SENSITIVE, false, cryptoki.CKA_EXTRACTABLE, true)
	key := s.do("AES", c(cryptoki.GenerateKey, session).mech(aesGen).with(length)).Numbers[0]
	s.do("AES without a length", c(cryptoki.GenerateKey, session).mech(aesGen).with(attrs()))
	s.do("AES of 17 bytes", c(cryptoki.GenerateKey, session).mech(aesGen).with(attrs(cryptoki.CKA_VALUE_LEN, uint64(17))))
	s.do("token key in a read-only session", c(cryptoki.GenerateKey, ro).mech(aesGen).with(attrs(cryptoki.CKA_VALUE_LEN, uint64(32), cryptoki.CKA_TOKEN, true)))
	s.do("no session", c(cryptoki.GenerateKey, noHandle).mech(aesGen).with(length))
	s.do("no mechanism", c(cryptoki.GenerateKey, session).with(length))
	s.do("mechanism of a pair", c(cryptoki.GenerateKey, session).mech(rsaGen).with(length))
	s.do("generic", c(cryptoki.GenerateKey, session).mech(mech(cryptoki.CKM_GENERIC_SECRET_KEY_GEN)).with(attrs(cryptoki.CKA_VALUE_LEN, uint64(20))))
	s.do("made", c(cryptoki.GetAttributeValue, session, key).with(room(
		cryptoki.CKA_LOCAL, 1, cryptoki.CKA_VALUE_LEN, 8, cryptoki.CKA_KEY_GEN_MECHANISM, 8, cryptoki.CKA_KEY_TYPE, 8)))
	// What the HSM encrypts with the key equals what Go does with its value.
	value := s.value(session, key, cryptoki.CKA_VALUE, 32)
	s.quietly(c(cryptoki.EncryptInit, session, key).mech(ecb()))
	ciphertext := s.quietly(c(cryptoki.Encrypt, session).data(text[:16]).room(16)).Data
	block, err := aes.NewCipher(value)
	want := make([]byte, 16)
	if err == nil {
		block.Encrypt(want, text[:16])
	}
	s.check("AES key is the one that was read", bytes.Equal(want, ciphertext))

	public := attrs(cryptoki.CKA_MODULUS_BITS, uint64(2048), cryptoki.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}, cryptoki.CKA_TOKEN, false)
	pair := s.do("RSA", c(cryptoki.GenerateKeyPair, session).mech(rsaGen).with(public, attrs(cryptoki.CKA_TOKEN, false)))
	s.do("RSA without a size", c(cryptoki.GenerateKeyPair, session).mech(rsaGen).with(attrs(), attrs()))
	s.do("no session", c(cryptoki.GenerateKeyPair, noHandle).mech(rsaGen).with(public, attrs()))
	s.do("no mechanism", c(cryptoki.GenerateKeyPair, session).with(public, attrs()))
	s.do("mechanism of one", c(cryptoki.GenerateKeyPair, session).mech(aesGen).with(public, attrs()))
	s.do("token pair in a read-only session", c(cryptoki.GenerateKeyPair, ro).mech(rsaGen).with(public, attrs(cryptoki.CKA_TOKEN, true)))
	digest := sha256.Sum256(text)
	s.quietly(c(cryptoki.SignInit, session, pair.Numbers[1]).mech(mech(cryptoki.CKM_SHA256_RSA_PKCS)))
	signature := s.quietly(c(cryptoki.Sign, session).data(text).room(256)).Data
	modulus := new(big.Int).SetBytes(s.value(session, pair.Numbers[0], cryptoki.CKA_MODULUS, 256))
	s.check("RSA pair signs", rsa.VerifyPKCS1v15(&rsa.PublicKey{N: modulus, E: 65537}, crypto.SHA256, digest[:], signature) == nil)
	s.do("EC", c(cryptoki.GenerateKeyPair, session).mech(ecGen).with(attrs(cryptoki.CKA_EC_PARAMS, p256), attrs(cryptoki.CKA_TOKEN, false, cryptoki.CKA_DERIVE, true)))
	s.do("EC without a curve", c(cryptoki.GenerateKeyPair, session).mech(ecGen).with(attrs(), attrs()))
}

func wrap(s *script) {
	session := s.user()
	public, private := s.create(session, s.keys.rsaPublic()), s.create(session, s.keys.rsaPrivate())
	open := s.create(session, aesTemplate(cryptoki.CKA_SENSITIVE, false, cryptoki.CKA_EXTRACTABLE, true))
	closed := s.create(session, aesTemplate(cryptoki.CKA_SENSITIVE, true, cryptoki.CKA_EXTRACTABLE, false))
	kek := s.create(session, aesTemplate(cryptoki.CKA_WRAP, true, cryptoki.CKA_UNWRAP, true))
	template := attrs(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY, cryptoki.CKA_KEY_TYPE, cryptoki.CKK_AES, cryptoki.CKA_TOKEN, false,
		cryptoki.CKA_SENSITIVE, false, cryptoki.CKA_EXTRACTABLE, true)
	oaep := &cryptoki.Mechanism{Type: cryptoki.CKM_RSA_PKCS_OAEP, Parameter: &cryptoki.OAEP{
		Hash: cryptoki.CKM_SHA_1, MGF: mgf1SHA1, Source: cryptoki.CKZ_DATA_SPECIFIED,
	}}
	for _, m := range []struct {
		name              string
		mechanism         *cryptoki.Mechanism
		wrapper, unwraper uint64
		same              bool
	}{
		{"RSA-PKCS", mech(cryptoki.CKM_RSA_PKCS), public, private, false},
		{"RSA-OAEP", oaep, public, private, false},
		{"AES-KEY-WRAP", mech(cryptoki.CKM_AES_KEY_WRAP), kek, kek, true},
		{"AES-KEY-WRAP-PAD", mech(cryptoki.CKM_AES_KEY_WRAP_PAD), kek, kek, true},
		{"AES-KEY-WRAP-KWP", mech(0x210b), kek, kek, true},
	} {
		s.do(m.name+", size", c(cryptoki.WrapKey, session, m.wrapper, open).mech(m.mechanism).ask())
		s.do(m.name+", too small", c(cryptoki.WrapKey, session, m.wrapper, open).mech(m.mechanism).room(1))
		wrapped := s.record(m.name, c(cryptoki.WrapKey, session, m.wrapper, open).mech(m.mechanism).room(512), !m.same).Data
		if wrapped == nil {
			wrapped = make([]byte, 40)
		}
		back := s.do(m.name, c(cryptoki.UnwrapKey, session, m.unwraper).mech(m.mechanism).data(wrapped).with(template)).Numbers[0]
		s.do(m.name+" comes back", c(cryptoki.GetAttributeValue, session, back).with(room(cryptoki.CKA_VALUE, 32)))
	}
	pkcs := mech(cryptoki.CKM_RSA_PKCS)
	s.do("not extractable", c(cryptoki.WrapKey, session, public, closed).mech(pkcs).room(512))
	s.do("no wrapping key", c(cryptoki.WrapKey, session, noHandle, open).mech(pkcs).room(512))
	s.do("no key", c(cryptoki.WrapKey, session, public, noHandle).mech(pkcs).room(512))
	s.do("no session", c(cryptoki.WrapKey, noHandle, public, open).mech(pkcs).room(512))
	s.do("no mechanism", c(cryptoki.WrapKey, session, public, open).room(512))
	s.do("key of another type", c(cryptoki.WrapKey, session, kek, open).mech(pkcs).room(512))
	forbidden := s.create(session, s.keys.rsaPublic(cryptoki.CKA_WRAP, false))
	s.do("key that may not", c(cryptoki.WrapKey, session, forbidden, open).mech(pkcs).room(512))
	s.do("no unwrapping key", c(cryptoki.UnwrapKey, session, noHandle).mech(pkcs).data(make([]byte, 256)).with(template))
	s.do("no session", c(cryptoki.UnwrapKey, noHandle, private).mech(pkcs).data(make([]byte, 256)).with(template))
	s.do("no mechanism", c(cryptoki.UnwrapKey, session, private).data(make([]byte, 256)).with(template))
	s.do("garbage", c(cryptoki.UnwrapKey, session, private).mech(oaep).data(make([]byte, 256)).with(template))
	s.do("wrong length", c(cryptoki.UnwrapKey, session, private).mech(oaep).data(make([]byte, 3)).with(template))
	// A key that another made, under this HSM's public key.
	foreign, err := rsa.EncryptPKCS1v15(rand.Reader, &s.keys.rsa.PublicKey, aesKey) //nolint:staticcheck // what the token can do
	if err == nil {
		back := s.do("foreign", c(cryptoki.UnwrapKey, session, private).mech(pkcs).data(foreign).with(template)).Numbers[0]
		s.do("foreign", c(cryptoki.GetAttributeValue, session, back).with(room(cryptoki.CKA_VALUE, 32)))
	}
}

func derive(s *script) {
	session := s.user()
	private := s.create(session, s.keys.ecPrivate(cryptoki.CKA_DERIVE, true))
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	template := attrs(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY, cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET, cryptoki.CKA_VALUE_LEN, uint64(32),
		cryptoki.CKA_TOKEN, false, cryptoki.CKA_SENSITIVE, false, cryptoki.CKA_EXTRACTABLE, true)
	ecdh1 := func(p cryptoki.ECDH1) *cryptoki.Mechanism {
		return &cryptoki.Mechanism{Type: cryptoki.CKM_ECDH1_DERIVE, Parameter: &p}
	}
	mechanism := ecdh1(cryptoki.ECDH1{KDF: kdfNull, PublicData: peer.PublicKey().Bytes()})
	derived := s.do("ECDH1", c(cryptoki.DeriveKey, session, private).mech(mechanism).with(template)).Numbers[0]
	want, err := s.keys.ecdh().ECDH(peer.PublicKey())
	s.check("ECDH1 is right", err == nil && bytes.Equal(s.value(session, derived, cryptoki.CKA_VALUE, 32), want))
	s.do("a KDF", c(cryptoki.DeriveKey, session, private).mech(ecdh1(cryptoki.ECDH1{
		KDF: kdfSHA1, SharedData: []byte("shared"), PublicData: peer.PublicKey().Bytes(),
	})).with(template))
	s.do("no point", c(cryptoki.DeriveKey, session, private).mech(ecdh1(cryptoki.ECDH1{KDF: kdfNull, PublicData: []byte("no point")})).with(template))
	s.do("no key", c(cryptoki.DeriveKey, session, noHandle).mech(mechanism).with(template))
	s.do("no session", c(cryptoki.DeriveKey, noHandle, private).mech(mechanism).with(template))
	s.do("no mechanism", c(cryptoki.DeriveKey, session, private).with(template))
	s.do("key of another type", c(cryptoki.DeriveKey, session, s.create(session, aesTemplate())).mech(mechanism).with(template))
	s.do("data with AES", c(cryptoki.DeriveKey, session, s.create(session, aesTemplate(cryptoki.CKA_DERIVE, true))).mech(
		&cryptoki.Mechanism{Type: cryptoki.CKM_AES_ECB_ENCRYPT_DATA, Parameter: cryptoki.Bytes(text)}).with(template))
}

// value reads an attribute for steps to come.
func (s *script) value(session, object, attribute uint64, size int) []byte {
	all := s.quietly(c(cryptoki.GetAttributeValue, session, object).with(room(attribute, size))).Attributes
	if len(all) != 1 {
		return nil
	}
	return all[0].Value
}
