package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// vault is where the example keeps its keys: a file of a random salt and the
// keys, sealed with AES-GCM under a key that the PIN opens.
type vault struct {
	file   string
	salt   []byte
	sealed []byte // as it was read; empty for a new file
	aead   cipher.AEAD
}

const saltSize = 16

func readVault(file string) (*vault, error) {
	content, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		content = make([]byte, saltSize)
		rand.Read(content)
	case err != nil:
		return nil, hsm.Errorf(hsm.TokenGone, "read the token: %v", err)
	case len(content) <= saltSize:
		return nil, hsm.Errorf(hsm.Corrupt, "the token in %s is cut off", file)
	}
	return &vault{file: file, salt: content[:saltSize], sealed: content[saltSize:]}, nil
}

// unlock returns the keys, and makes the file when there was none. It keeps
// nothing of the PIN but the cipher.
func (v *vault) unlock(pin []byte) (map[hsm.KeyID]entry, error) {
	var err error
	if v.aead, err = newCipher(pin, v.salt); err != nil {
		return nil, hsm.Errorf(hsm.Internal, "derive a key from the PIN: %v", err)
	}
	entries := map[hsm.KeyID]entry{}
	if len(v.sealed) == 0 {
		return entries, v.save(entries)
	}
	opened, err := v.aead.Open(nil, nil, v.sealed, v.salt)
	if err != nil {
		// The code is the device's own word; a real one has a number for it.
		return nil, &hsm.Error{Reason: hsm.PINIncorrect, Code: "CKR_PIN_INCORRECT",
			Detail: "open the token: the PIN is wrong and is not tried again, or the file is damaged"}
	}
	defer clear(opened)
	if err := json.Unmarshal(opened, &entries); err != nil {
		return nil, hsm.Errorf(hsm.Corrupt, "the token in %s cannot be read", v.file)
	}
	return entries, nil
}

func newCipher(pin, salt []byte) (cipher.AEAD, error) {
	const rounds = 600_000
	key, err := pbkdf2.Key(sha256.New, string(pin), salt, rounds, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// id tells the token from others for as long as its file exists. A device says
// this of itself before anybody logs in.
func (v *vault) id() hsm.TokenID {
	return hsm.TokenID{Manufacturer: "kmsbroker", Model: "example, no HSM", Serial: hex.EncodeToString(v.salt)}
}

// save replaces the file, so that a process that is killed leaves the old keys
// or the new ones.
func (v *vault) save(entries map[hsm.KeyID]entry) error {
	plain, err := json.Marshal(entries)
	if err != nil {
		return hsm.Errorf(hsm.Internal, "encode the keys: %v", err)
	}
	defer clear(plain)
	if err := replace(v.file, v.aead.Seal(v.salt[:saltSize:saltSize], nil, plain, v.salt)); err != nil { //nolint:gosec // the cipher makes its own nonce
		return hsm.Errorf(hsm.TokenGone, "write the token: %v", err)
	}
	return nil
}

func replace(file string, content []byte) error {
	part, err := os.OpenFile(file+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer part.Close()
	if _, err := part.Write(content); err != nil {
		return err
	}
	if err := part.Sync(); err != nil {
		return err
	}
	return os.Rename(part.Name(), file)
}
