package broker

import (
	"maps"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/envelope"
)

// own is what the broker adds to a caller's request: entries of the encryption
// context that no caller can have, and details for the audit trail.
type own struct {
	context map[string]string
	details map[string]string
	// keyID has the CMKs that may have made a ciphertext, joined by keyIDSeparator; ""
	// is all of the key.
	keyID string
	// most is how long a plaintext may be, in bytes; 0 is what others may.
	most int
}

// limit is how long a plaintext may be where others may have that many bytes.
func (o own) limit(others int) int {
	if o.most > 0 {
		return o.most
	}
	return others
}

// mayBe is whether a CMK may have made the ciphertext.
func (o own) mayBe(keyID string) bool {
	return o.keyID == "" || slices.Contains(strings.Split(o.keyID, keyIDSeparator), keyID)
}

// bound is the encryption context at KMS. The two have no name in common.
func (o own) bound(encryptionContext map[string]string) map[string]string {
	if len(o.context) == 0 {
		return encryptionContext
	}
	all := maps.Clone(o.context)
	maps.Copy(all, encryptionContext)
	return all
}

// mayBeAll is mayBe of all that opens an envelope.
func (o own) mayBeAll(wrapped []envelope.WrappedKey) bool {
	return !slices.ContainsFunc(wrapped, func(w envelope.WrappedKey) bool { return !o.mayBe(w.KeyID) })
}

// detailed returns the details and another one.
func (o own) detailed(name, value string) map[string]string {
	all := map[string]string{name: value}
	maps.Copy(all, o.details)
	return all
}
