package hsm

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// KeyID is the CKA_ID of a key in lower-case hex. It names a key within one
// token.
type KeyID string

// maxKeyID bounds CKA_ID in bytes. PKCS#11 sets no limit; Luna and SoftHSM take
// more than anybody uses.
const maxKeyID = 64

// NewKeyID returns an ID of 128 random bits, so that a generation can be
// repeated after a lost answer without making a second key.
func NewKeyID() KeyID {
	var id [16]byte
	rand.Read(id[:]) // never fails (crypto/rand since Go 1.24)
	return KeyIDFromBytes(id[:])
}

// KeyIDFromBytes turns a CKA_ID into a KeyID.
func KeyIDFromBytes(id []byte) KeyID { return KeyID(hex.EncodeToString(id)) }

// ParseKeyID checks that s is the hex form of 1 to 64 bytes, in lower case.
func ParseKeyID(s string) (KeyID, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) == 0 || len(raw) > maxKeyID || hex.EncodeToString(raw) != s {
		return "", Errorf(Invalid, "HSM key id %.140q is not lower-case hex of 1 to %d bytes", s, maxKeyID)
	}
	return KeyID(s), nil
}

// Bytes returns the CKA_ID. It panics on a KeyID that did not come from this
// package's constructors.
func (id KeyID) Bytes() []byte {
	raw, err := hex.DecodeString(string(id))
	if err != nil {
		panic(fmt.Sprintf("hsm: KeyID(%q) was not parsed", string(id)))
	}
	return raw
}

// Key is what a token says of a secret key. No field is secret.
type Key struct {
	ID    KeyID
	Label string
	Type  string // "AES", or the token's CKK_ number in hex for another type
	Bits  int    // length of the value in bits; 0 when the token does not say

	// PKCS#11 2.40, section 4.8 and 4.9.
	Private          bool
	Sensitive        bool
	AlwaysSensitive  bool
	Extractable      bool
	NeverExtractable bool
	Local            bool // generated inside the token
	Modifiable       bool
	Encrypt          bool
	Decrypt          bool
	Wrap             bool
	Unwrap           bool
	Sign             bool
	Verify           bool
	Derive           bool

	// Vendor attributes worth showing, such as a Luna OUID; usually nil.
	Vendor map[string]string
}

// CheckValue is a key check value (KCV): the first three bytes of the AES-ECB
// encryption of a block of zeros (PKCS#11 2.40, section 4.9.1). Different values
// prove different keys. Equal values prove little: one pair in 16 million agrees
// by chance.
type CheckValue [3]byte

// String returns the check value as six hex digits.
func (v CheckValue) String() string { return hex.EncodeToString(v[:]) }
