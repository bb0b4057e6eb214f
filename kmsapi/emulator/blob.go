package emulator

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

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
	raw, err := decodeBase64(text)
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

const maxContext = 8192 // characters of JSON

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

// context reads an encryption context parameter.
func (c *call) context(name string) (encryptionContext, error) {
	text := c.params[name]
	if text == "" {
		return nil, nil
	}
	ec, err := parseContext(text)
	if err != nil {
		return nil, wire.InvalidParameter(name)
	}
	return ec, nil
}

var errContext = errors.New("not a JSON object of strings")

// parseContext takes a JSON object whose values are strings and whose keys are
// all different.
func parseContext(text string) (encryptionContext, error) {
	if utf8.RuneCountInString(text) > maxContext {
		return nil, errContext
	}
	d := json.NewDecoder(strings.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errContext
	}
	ec := encryptionContext{}
	for d.More() {
		name, err := stringToken(d)
		if err != nil {
			return nil, err
		}
		if _, twice := ec[name]; twice {
			return nil, errContext
		}
		if ec[name], err = stringToken(d); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, errContext
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errContext
	}
	return ec, nil
}

func stringToken(d *json.Decoder) (string, error) {
	t, err := d.Token()
	if err != nil {
		return "", errContext
	}
	s, ok := t.(string)
	if !ok {
		return "", errContext
	}
	return s, nil
}
