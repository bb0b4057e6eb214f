package pkcs11

import "github.com/kmsbroker/kmsbroker/hsm"

// mayChange refuses what makes, imports or removes objects to the Crypto User.
// The device would refuse it too, but no vendor documents with which code, and a
// refusal that is known beforehand needs no round trip. Wrapping is included,
// because the wrapping key has to be imported for it.
func (t *Token) mayChange(what string) error {
	if t.role != hsm.CryptoUser {
		return nil
	}
	return hsm.Errorf(hsm.NotPermitted,
		"a Crypto User may not %s: it can look at keys and verify them; configure the role %s for the rest", what, hsm.CryptoOfficer)
}
