package emulator

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // RSAES_OAEP_SHA_1 is part of the API
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

const (
	wrapOAEPSHA256 = "RSAES_OAEP_SHA_256"
	wrapOAEPSHA1   = "RSAES_OAEP_SHA_1"
	wrapPKCS1v15   = "RSAES_PKCS1_V1_5"

	wrappingSpec = "RSA_2048"
	wrappingBits = 2048

	tokenLifetime = 24 * time.Hour
	tokenSize     = 256 // random bytes
)

// importToken is what an import token stands for: a wrapping key that was made
// for one key, one algorithm and 24 hours.
type importToken struct {
	KeyID     string
	Algorithm string
	ExpiresAt time.Time

	private *rsa.PrivateKey // nil once expired
}

// newImportToken makes a wrapping key and the token that goes with it.
func newImportToken(keyID, algorithm string, now time.Time) (text string, t *importToken, err error) {
	private, err := rsa.GenerateKey(rand.Reader, wrappingBits)
	if err != nil {
		return "", nil, fmt.Errorf("generate wrapping key: %w", err)
	}
	raw := make([]byte, tokenSize)
	rand.Read(raw) // never fails (crypto/rand since Go 1.24)
	return base64.StdEncoding.EncodeToString(raw), &importToken{
		KeyID: keyID, Algorithm: algorithm, ExpiresAt: now.Add(tokenLifetime).Truncate(time.Second), private: private,
	}, nil
}

// nextEvent is when the token expires, and after that, when it is forgotten.
func (t *importToken) nextEvent() time.Time {
	if t.private == nil {
		return t.ExpiresAt.Add(tokenMemory)
	}
	return t.ExpiresAt
}

// publicKey returns base64 of DER SubjectPublicKeyInfo, without PEM armour.
func (t *importToken) publicKey() (string, error) {
	der, err := x509.MarshalPKIXPublicKey(&t.private.PublicKey)
	if err != nil {
		return "", fmt.Errorf("encode wrapping key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(der), nil
}

// unwrap decrypts key material. OAEP uses one hash for label and mask, and an
// empty label. Whatever is wrong, the padding, the algorithm or the length,
// gives one and the same refusal: which of them it was would be an oracle for
// the padding (RFC 8017, sections 7.1.2 and 7.2.2).
func (t *importToken) unwrap(wrapped []byte) ([]byte, error) {
	var material []byte
	var err error
	switch t.Algorithm {
	case wrapOAEPSHA256:
		material, err = rsa.DecryptOAEP(sha256.New(), nil, t.private, wrapped, nil)
	case wrapOAEPSHA1:
		material, err = rsa.DecryptOAEP(sha1.New(), nil, t.private, wrapped, nil) //nolint:gosec // RSAES_OAEP_SHA_1 is part of the API
	case wrapPKCS1v15:
		material, err = rsa.DecryptPKCS1v15(nil, t.private, wrapped) //nolint:staticcheck // RSAES_PKCS1_V1_5 is part of the API
	default:
		return nil, fmt.Errorf("import token with unknown algorithm %q", t.Algorithm)
	}
	if err != nil || len(material) != materialSize {
		return nil, errKeyMaterial
	}
	return material, nil
}

// tokenRecord is an importToken on disk.
type tokenRecord struct {
	KeyID     string
	Algorithm string
	ExpiresAt time.Time
	Private   []byte `json:",omitempty"` // PKCS #8
}

// MarshalJSON encodes the token with its private key.
func (t *importToken) MarshalJSON() ([]byte, error) {
	record := tokenRecord{KeyID: t.KeyID, Algorithm: t.Algorithm, ExpiresAt: t.ExpiresAt}
	if t.private != nil {
		der, err := x509.MarshalPKCS8PrivateKey(t.private)
		if err != nil {
			return nil, fmt.Errorf("encode wrapping key: %w", err)
		}
		record.Private = der
	}
	return json.Marshal(record)
}

// UnmarshalJSON is the reverse of MarshalJSON.
func (t *importToken) UnmarshalJSON(data []byte) error {
	var record tokenRecord
	if err := json.Unmarshal(data, &record); err != nil {
		return err
	}
	*t = importToken{KeyID: record.KeyID, Algorithm: record.Algorithm, ExpiresAt: record.ExpiresAt}
	if len(record.Private) == 0 {
		return nil
	}
	private, err := x509.ParsePKCS8PrivateKey(record.Private)
	if err != nil {
		return fmt.Errorf("wrapping key: %w", err)
	}
	var ok bool
	if t.private, ok = private.(*rsa.PrivateKey); !ok {
		return fmt.Errorf("wrapping key is %T, not RSA", private)
	}
	return nil
}
