package conformance

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
)

// badKey is a public key that must not be wrapped under.
type badKey struct {
	what string
	der  []byte
}

func malformedKeys(keys *wrappingKeys) ([]badKey, error) {
	good, err := keys.get(2048)
	if err != nil {
		return nil, err
	}
	return []badKey{
		{"nothing", nil},
		{"bytes that are not DER", []byte("not DER at all")},
		{"an empty SEQUENCE", []byte{0x30, 0x00}},
		{"a cut SubjectPublicKeyInfo", good.spki[:len(good.spki)-1]},
		{"a SubjectPublicKeyInfo with a byte after it", append(slices.Clone(good.spki), 0)},
		{"PEM", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: good.spki})},
		{"a bare RSAPublicKey", x509.MarshalPKCS1PublicKey(&good.private.PublicKey)},
	}, nil
}

func foreignKeys(*wrappingKeys) ([]badKey, error) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ecDER, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	if err != nil {
		return nil, err
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	edDER, err := x509.MarshalPKIXPublicKey(edwards)
	if err != nil {
		return nil, err
	}
	return []badKey{{"an EC key on P-256", ecDER}, {"an Ed25519 key", edDER}}, nil
}

func weakKeys(keys *wrappingKeys) ([]badKey, error) {
	short, err := keys.get(1024)
	if err != nil {
		return nil, err
	}
	good, err := keys.get(2048)
	if err != nil {
		return nil, err
	}
	// Whether a modulus suits the exponent 3 shows only to its owner.
	three, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: good.private.N, E: 3})
	if err != nil {
		return nil, err
	}
	return []badKey{{"RSA-1024", short.spki}, {"RSA-2048 with the exponent 3", three}}, nil
}
