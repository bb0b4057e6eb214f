package conformance

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" //nolint:gosec // RSAES_OAEP_SHA_1 is one of the algorithms to be checked
	_ "crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// wrappingKeys are RSA keys that stand for those of the cloud, made when they
// are first needed.
type wrappingKeys struct {
	mu   sync.Mutex
	made map[int]*wrappingKey
}

type wrappingKey struct {
	private *rsa.PrivateKey
	spki    []byte
}

func newWrappingKeys() *wrappingKeys { return &wrappingKeys{made: map[int]*wrappingKey{}} }

func (k *wrappingKeys) get(bits int) (*wrappingKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.made[bits]; key != nil {
		return key, nil
	}
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, err
	}
	key := &wrappingKey{private: private, spki: spki}
	k.made[bits] = key
	return key, nil
}

// exported is the value of a throw-away key as the receiver of a blob sees it.
type exported struct {
	value []byte
	// mgf is the hash of MGF1 that the blob was made with; 0 for PKCS #1 v1.5.
	mgf crypto.Hash
}

// checkValue computes the check value of an AES-256 key.
func (e *exported) checkValue() (hsm.CheckValue, error) {
	if len(e.value) != 32 {
		return hsm.CheckValue{}, failed("the blob holds %d bytes, not the 32 of an AES-256 key", len(e.value))
	}
	block, err := aes.NewCipher(e.value)
	if err != nil {
		return hsm.CheckValue{}, err
	}
	out := make([]byte, aes.BlockSize)
	block.Encrypt(out, out)
	return hsm.CheckValue(out[:3]), nil
}

func (e *exported) equal(other *exported) bool { return bytes.Equal(e.value, other.value) }

// open opens a blob. It tries both MGF1 hashes, so that a device which confuses
// them is told what it confuses.
func (k *wrappingKey) open(blob []byte, algorithm hsm.WrappingAlgorithm) (*exported, error) {
	var attempts []rsa.OAEPOptions
	switch algorithm {
	case hsm.OAEPSHA256:
		attempts = []rsa.OAEPOptions{{Hash: crypto.SHA256, MGFHash: crypto.SHA256}, {Hash: crypto.SHA256, MGFHash: crypto.SHA1}}
	case hsm.OAEPSHA1:
		attempts = []rsa.OAEPOptions{{Hash: crypto.SHA1, MGFHash: crypto.SHA1}, {Hash: crypto.SHA1, MGFHash: crypto.SHA256}}
	case hsm.PKCS1v15:
		value, err := k.private.Decrypt(nil, blob, &rsa.PKCS1v15DecryptOptions{}) //nolint:staticcheck // a device that wraps this way is to be checked too
		if err != nil {
			return nil, err
		}
		return &exported{value: value}, nil
	default:
		return nil, fmt.Errorf("algorithm %s is unknown", algorithm)
	}
	var err error
	for _, attempt := range attempts {
		var value []byte
		if value, err = k.private.Decrypt(nil, blob, &attempt); err == nil {
			return &exported{value: value, mgf: attempt.MGFHash}, nil
		}
	}
	return nil, err
}
