package importer

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// verifyContext marks the broker's own test ciphertexts. Every door refuses
// contexts that begin "kmsbroker.", so nobody can have one opened.
func verifyContext() map[string]string { return map[string]string{"kmsbroker.purpose": "verify"} }

// roundTrip proves that a CMK is Enabled, encrypts and decrypts. It does not
// prove whose material the CMK holds.
func (i *Importer) roundTrip(ctx context.Context, keyID string) error {
	cmk, err := i.Endpoint.KMS.DescribeKey(ctx, keyID)
	if err != nil {
		return err
	}
	if cmk.State != kmsapi.Enabled {
		return failure.New(failure.WrongState, "CMK_NOT_ENABLED", "CMK %s is in state %s, not Enabled", keyID, cmk.State)
	}
	var sent [32]byte
	rand.Read(sent[:])
	encrypted, err := i.Endpoint.KMS.Encrypt(ctx, kmsapi.EncryptRequest{KeyID: keyID, Plaintext: sent[:], Context: verifyContext()})
	if err != nil {
		return err
	}
	decrypted, err := i.Endpoint.KMS.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: encrypted.CiphertextBlob, Context: verifyContext()})
	if err != nil {
		return err
	}
	if decrypted.KeyID != keyID || subtle.ConstantTimeCompare(decrypted.Plaintext, sent[:]) != 1 {
		return failure.New(failure.Corrupt, "ROUND_TRIP", "what CMK %s encrypted came back different, from CMK %s", keyID, decrypted.KeyID)
	}
	return nil
}

// Check is one thing that Verify looked at.
type Check struct {
	Name   string
	Passed bool
	Detail string // what was done and what it proves, or why it failed
}

// Verify looks at a key from both ends: a round trip through KMS, and the HSM
// key's attributes and check value. A failed check is not an error.
func (i *Importer) Verify(ctx context.Context, key *keyring.Key) ([]Check, error) {
	backend, err := i.Backend(key.Backend)
	if err != nil {
		return nil, err
	}
	cmk := key.Current()
	return []Check{
		check("round trip", "KMS encrypted and decrypted with CMK "+cmk.KeyID+"; says nothing about whose material it holds",
			i.roundTrip(ctx, cmk.KeyID)),
		check("hsm key", "present, AES-256, sensitive, extractable under a wrapping key, generated inside the HSM",
			checkAttributes(ctx, backend, cmk)),
		check("check value", "the HSM's check value is the recorded "+cmk.CheckValue+"; a difference would prove another key, equality proves little",
			checkKCV(ctx, backend, cmk)),
	}, nil
}

func check(name, proves string, err error) Check {
	if err != nil {
		return Check{Name: name, Detail: failure.From(err).Message}
	}
	return Check{Name: name, Passed: true, Detail: proves}
}

func checkAttributes(ctx context.Context, backend Backend, cmk *keyring.CMK) error {
	key, err := backend.Token.Key(ctx, cmk.HSMKeyID)
	if err != nil {
		return err
	}
	if key.Type != "AES" || key.Bits != 256 || !key.Sensitive || !key.Extractable || !key.Local {
		return failure.New(failure.WrongState, "HSM_KEY_ATTRIBUTES",
			"HSM key %s is %s-%d, sensitive %v, extractable %v, local %v",
			cmk.HSMKeyID, key.Type, key.Bits, key.Sensitive, key.Extractable, key.Local)
	}
	return nil
}

// checkKCV refuses an HSM key that is certainly not the CMK's material. KMS
// would refuse it too, but only after it was sent.
func checkKCV(ctx context.Context, backend Backend, cmk *keyring.CMK) error {
	kcv, err := backend.Token.CheckValue(ctx, cmk.HSMKeyID)
	if err != nil {
		return err
	}
	if kcv.String() != cmk.CheckValue {
		return failure.New(failure.WrongState, "CHECK_VALUE",
			"HSM key %s has check value %s, the material of CMK %s had %s: it is another key",
			cmk.HSMKeyID, kcv, cmk.KeyID, cmk.CheckValue).
			WithHint("KMS accepts only identical material; restore the HSM key from the HSM's own backup")
	}
	return nil
}

func verifySummary(cmk *keyring.CMK) string {
	return fmt.Sprintf("KMS accepted the material of HSM key %s again: it is identical to the first import", cmk.HSMKeyID)
}
