package audit

import (
	"encoding/hex"
	"unicode/utf8"
)

// PKCS11 begins the actions of the PKCS#11 door. After it comes the name of an
// operation on objects in package authz, as in "pkcs11.sign", or what is below.
const PKCS11 = "pkcs11."

// Actions of the PKCS#11 door that no grant names.
const (
	PKCS11Login = PKCS11 + "login" // with an application PIN
)

// Keys of Event.Details of such actions. The token is in Event.Backend.
const (
	DetailLabel     = "label"     // CKA_LABEL of the object, as Label returns it
	DetailObjectID  = "object_id" // its CKA_ID, hex
	DetailClass     = "class"     // its CKA_CLASS: "private-key"
	DetailMechanism = "mechanism" // "CKM_ECDSA"
)

// maxLabel is how many characters of a label are recorded.
const maxLabel = 64

// Label returns as much of a label as a record has: up to 64 characters, and then a
// mark of the cut. Whoever may name objects shall not fill the disk. What is not
// printable is replaced when the record is written.
func Label(label string) string {
	end := 0
	for range maxLabel {
		_, width := utf8.DecodeRuneInString(label[end:])
		if width == 0 {
			return label
		}
		end += width
	}
	if end == len(label) {
		return label
	}
	return label[:end] + "…"
}

// ObjectDetails returns the details that say which object it is: what there is of
// its label, id and class.
func ObjectDetails(label string, id []byte, class string) map[string]string {
	details := map[string]string{}
	if label != "" {
		details[DetailLabel] = Label(label)
	}
	if len(id) > 0 {
		details[DetailObjectID] = hex.EncodeToString(id)
	}
	if class != "" {
		details[DetailClass] = class
	}
	return details
}
