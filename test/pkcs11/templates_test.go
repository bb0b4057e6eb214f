package pkcs11

import (
	"crypto/ecdh"
	"encoding/asn1"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

var (
	aesKey = []byte("0123456789abcdef0123456789ABCDEF")
	secret = []byte("a generic secret of 32 bytes....")
	text   = []byte("sixteen bytes...and sixteen more")
	p256   = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
)

// attrs makes a template of pairs of a CKA_ and a bool, a uint64, a text or bytes.
func attrs(pairs ...any) []cryptoki.Attribute {
	template := []cryptoki.Attribute{}
	for i := 0; i < len(pairs); i += 2 {
		attribute := pairs[i].(uint64)
		switch value := pairs[i+1].(type) {
		case bool:
			template = append(template, cryptoki.BoolAttribute(attribute, value))
		case uint64:
			template = append(template, cryptoki.UlongAttribute(attribute, value))
		case string:
			template = append(template, cryptoki.BytesAttribute(attribute, []byte(value)))
		case []byte:
			template = append(template, cryptoki.BytesAttribute(attribute, value))
		}
	}
	return template
}

// but is a template with other or more attributes.
func but(template []cryptoki.Attribute, pairs ...any) []cryptoki.Attribute {
	for _, a := range attrs(pairs...) {
		if has := cryptoki.Find(template, a.Type); has != nil {
			*has = a
			continue
		}
		template = append(template, a)
	}
	return template
}

// aesTemplate is a session key with a known value.
func aesTemplate(more ...any) []cryptoki.Attribute {
	return but(attrs(
		cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY, cryptoki.CKA_KEY_TYPE, cryptoki.CKK_AES, cryptoki.CKA_VALUE, aesKey,
		cryptoki.CKA_TOKEN, false, cryptoki.CKA_LABEL, "aes"), more...)
}

func secretTemplate(more ...any) []cryptoki.Attribute {
	return but(attrs(
		cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY, cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET, cryptoki.CKA_VALUE, secret,
		cryptoki.CKA_TOKEN, false, cryptoki.CKA_LABEL, "secret"), more...)
}

func (k *testKeys) rsaPrivate(more ...any) []cryptoki.Attribute {
	return but(attrs(
		cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY, cryptoki.CKA_KEY_TYPE, cryptoki.CKK_RSA, cryptoki.CKA_TOKEN, false, cryptoki.CKA_LABEL, "rsa",
		cryptoki.CKA_MODULUS, k.rsa.N.Bytes(), cryptoki.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}, cryptoki.CKA_PRIVATE_EXPONENT, k.rsa.D.Bytes(),
		cryptoki.CKA_PRIME_1, k.rsa.Primes[0].Bytes(), cryptoki.CKA_PRIME_2, k.rsa.Primes[1].Bytes(),
		cryptoki.CKA_EXPONENT_1, k.rsa.Precomputed.Dp.Bytes(), cryptoki.CKA_EXPONENT_2, k.rsa.Precomputed.Dq.Bytes(),
		cryptoki.CKA_COEFFICIENT, k.rsa.Precomputed.Qinv.Bytes()), more...)
}

func (k *testKeys) rsaPublic(more ...any) []cryptoki.Attribute {
	return but(attrs(
		cryptoki.CKA_CLASS, cryptoki.CKO_PUBLIC_KEY, cryptoki.CKA_KEY_TYPE, cryptoki.CKK_RSA, cryptoki.CKA_TOKEN, false, cryptoki.CKA_LABEL, "rsa",
		cryptoki.CKA_MODULUS, k.rsa.N.Bytes(), cryptoki.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}), more...)
}

func (k *testKeys) ecPrivate(more ...any) []cryptoki.Attribute {
	scalar, err := k.ec.Bytes()
	if err != nil {
		panic(err)
	}
	return but(attrs(
		cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY, cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC, cryptoki.CKA_TOKEN, false, cryptoki.CKA_LABEL, "ec",
		cryptoki.CKA_EC_PARAMS, p256, cryptoki.CKA_VALUE, scalar), more...)
}

func (k *testKeys) ecPublic(more ...any) []cryptoki.Attribute {
	point, err := asn1.Marshal(k.ecdh().PublicKey().Bytes())
	if err != nil {
		panic(err)
	}
	return but(attrs(
		cryptoki.CKA_CLASS, cryptoki.CKO_PUBLIC_KEY, cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC, cryptoki.CKA_TOKEN, false, cryptoki.CKA_LABEL, "ec",
		cryptoki.CKA_EC_PARAMS, p256, cryptoki.CKA_EC_POINT, point), more...)
}

func (k *testKeys) ecdh() *ecdh.PrivateKey {
	key, err := k.ec.ECDH()
	if err != nil {
		panic(err)
	}
	return key
}

// Numbers that the header has only as enumerations.
const (
	mgf1SHA1, mgf1SHA256 = 1, 2
	kdfNull, kdfSHA1     = 1, 2
)
