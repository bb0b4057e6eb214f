package emulator

import (
	"encoding/base64"
	"encoding/binary"
	"io"
	"maps"
	"slices"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// A ciphertext blob is base64 of
//
//	ID of the key version, 36 characters | nonce, 12 bytes | AES-256-GCM ciphertext and tag
//
// The prefix is what samples in the documentation show, and how Decrypt finds
// the key. The rest is the emulator's own: the service does not say what it is.
// The additional data are the version ID and the encryption context.
const versionSize = 36

// seal encrypts under a key that has material.
func (k *key) seal(plaintext []byte, context encryptionContext) string {
	prefix := []byte(k.Version)
	sealed := k.aead.Seal(prefix, nil, plaintext, context.additionalData(k.Version)) //nolint:gosec // the AEAD makes its own nonce
	return base64.StdEncoding.EncodeToString(sealed)
}

// open decrypts what seal made under a version, with an equal context.
func (k *key) open(version string, sealed []byte, context encryptionContext) ([]byte, error) {
	return k.sealer(version).Open(nil, nil, sealed, context.additionalData(version))
}

// splitBlob takes the version ID off a blob.
func splitBlob(text string) (version string, sealed []byte, err error) {
	raw, err := wire.DecodeBase64(text)
	if err != nil {
		return "", nil, err
	}
	if len(raw) <= versionSize {
		return "", nil, io.ErrUnexpectedEOF
	}
	return string(raw[:versionSize]), raw[versionSize:], nil
}

// encryptionContext binds a ciphertext to what it is for. It is not secret and
// not part of the ciphertext.
type encryptionContext map[string]string

// additionalData encodes the context so that equal maps, and only they, give
// equal bytes: sorted by key, each text after its length.
func (ec encryptionContext) additionalData(version string) []byte {
	data := []byte(version)
	for _, name := range slices.Sorted(maps.Keys(ec)) {
		for _, text := range []string{name, ec[name]} {
			data = binary.BigEndian.AppendUint32(data, uint32(len(text)))
			data = append(data, text...)
		}
	}
	return data
}
