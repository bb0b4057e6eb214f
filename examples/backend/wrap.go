package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Wrap implements hsm.Token. An algorithm that Describe does not declare is
// refused and never replaced by another one.
func (t *token) Wrap(ctx context.Context, req hsm.WrapRequest) ([]byte, error) {
	if req.Algorithm != hsm.OAEPSHA256 {
		return nil, hsm.Errorf(hsm.AlgorithmUnsupported, "the token cannot wrap with %.40q", string(req.Algorithm))
	}
	public, err := parsePublicKey(req.PublicKey)
	if err != nil {
		return nil, err
	}
	found, leave, err := t.find(ctx, req.Key)
	if err != nil {
		return nil, err
	}
	defer leave()
	if found.Sealed {
		return nil, hsm.Errorf(hsm.NotExportable, "key %s is sealed: it may not leave the token", req.Key)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, found.Value, nil)
	if err != nil {
		return nil, hsm.Errorf(hsm.Internal, "wrap key %s: %v", req.Key, err)
	}
	return wrapped, nil
}

// parsePublicKey reads a DER SubjectPublicKeyInfo and refuses what is too weak
// for a device in FIPS mode.
func parsePublicKey(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key: %v", err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key is a %T, not RSA", parsed)
	}
	if bits := public.N.BitLen(); bits < 2048 || bits > 4096 || public.E < 65537 {
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key has %d bits and the exponent %d; needed are 2048 to 4096 and at least 65537", bits, public.E)
	}
	return public, nil
}
