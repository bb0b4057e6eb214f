package evidence

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kmsbroker/kmsbroker/internal/secretfile"
)

// FileName is the signing key's name within the state directory: PEM, PKCS #8,
// mode 0600.
const FileName = "evidence.key"

// Signer holds the key that a broker signs its evidence with, for all its life.
type Signer struct {
	private ed25519.PrivateKey
}

// OpenSigner reads the key in dir, and makes it the first time.
func OpenSigner(dir string) (*Signer, error) {
	path := filepath.Join(dir, FileName)
	raw, err := secretfile.Read(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("make the evidence key: %w", err)
		}
		raw, err = secretfile.Read(path)
	}
	if err != nil {
		return nil, fmt.Errorf("evidence key: %w", err)
	}
	defer clear(raw)
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("evidence key %s is not PEM: restore it from a backup; a new one has another fingerprint", path)
	}
	defer clear(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("evidence key %s is not an Ed25519 key in PKCS #8: restore it from a backup", path)
	}
	return &Signer{private: private}, nil
}

// create writes a new key and then gives it its name, so that a crash leaves no
// half of one.
func create(path string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), FileName+".*")
	if err != nil {
		return err
	}
	err = errors.Join(pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der}), f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	return errors.Join(err, os.Remove(f.Name()))
}

// Public is the key that verifies.
func (s *Signer) Public() ed25519.PublicKey { return s.private.Public().(ed25519.PublicKey) }
