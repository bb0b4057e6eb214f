package importer

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// verifyContext marks the broker's own test ciphertexts. Every door refuses
// contexts that begin "kmsbroker.", so nobody can have one opened.
func verifyContext() map[string]string { return map[string]string{"kmsbroker.purpose": "verify"} }

// roundTrip proves that a CMK is Enabled, encrypts and decrypts. It does not
// prove whose material the CMK holds.
func roundTrip(ctx context.Context, kms kmsapi.KMS, keyID string) error {
	cmk, err := kms.DescribeKey(ctx, keyID)
	if err != nil {
		return err
	}
	if cmk.State != kmsapi.Enabled {
		return failure.New(failure.WrongState, "CMK_NOT_ENABLED", "CMK %s is in state %s, not Enabled", keyID, cmk.State)
	}
	var sent [32]byte
	rand.Read(sent[:])
	encrypted, err := kms.Encrypt(ctx, kmsapi.EncryptRequest{KeyID: keyID, Plaintext: sent[:], Context: verifyContext()})
	if err != nil {
		return err
	}
	decrypted, err := kms.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: encrypted.CiphertextBlob, Context: verifyContext()})
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
	Region string // empty: of the HSM key
	Passed bool
	Detail string // what was done and what it proves, or why it failed
}

// Verify looks at a key from both ends: a round trip through the KMS of each
// region, and the HSM key's attributes and check value. A failed check is not an
// error.
func (i *Importer) Verify(ctx context.Context, key *keyring.Key) ([]Check, error) {
	var checks []Check
	for _, cmk := range key.CurrentCMKs() {
		endpoint, err := i.Endpoints.In(cmk.Region)
		if err != nil {
			return nil, err
		}
		c := check("round trip", "KMS encrypted and decrypted with CMK "+cmk.KeyID+"; says nothing about whose material it holds",
			roundTrip(ctx, endpoint.KMS, cmk.KeyID))
		c.Region = cmk.Region
		checks = append(checks, c)
	}
	if key.Backend == "" {
		return checks, nil
	}
	backend, err := i.Backend(key.Backend)
	if err != nil {
		return nil, err
	}
	// In the middle of a rotation the regions have different HSM keys.
	seen := map[hsm.KeyID]bool{}
	for _, cmk := range key.CurrentCMKs() {
		if seen[cmk.HSMKeyID] {
			continue
		}
		seen[cmk.HSMKeyID] = true
		checks = append(checks,
			check("hsm key", "HSM key "+string(cmk.HSMKeyID)+" is present, AES-256, sensitive, generated inside the HSM", checkAttributes(ctx, backend, cmk)),
			check("check value", "the HSM's check value is the recorded "+cmk.CheckValue+"; a difference would prove another key, equality proves little",
				checkKCV(ctx, backend, cmk.HSMKeyID, cmk.CheckValue)))
	}
	return checks, nil
}

// MaterialCheck is what an import of the same material, which ended with err,
// says.
func MaterialCheck(key *keyring.Key, err error) Check {
	return check("material", fmt.Sprintf("KMS accepted the HSM's key again as the material of %d CMKs, and it accepts only identical material: the service's own statement of equality",
		len(key.CurrentCMKs())), err)
}

// Observe refuses an HSM key that cannot be imported, and returns what the HSM says
// of one that can. The time and the name of the backend are the caller's to add.
func Observe(ctx context.Context, backend Backend, id hsm.KeyID) (*keyring.Birth, error) {
	key, err := backend.Token.Key(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := usable(key); err != nil {
		return nil, err
	}
	kcv, err := backend.Token.CheckValue(ctx, id)
	if err != nil {
		return nil, err
	}
	info, err := backend.Token.Describe(ctx)
	if err != nil {
		return nil, err
	}
	return &keyring.Birth{
		Device: keyring.DeviceOf(info), HSMKeyID: id, CheckValue: kcv.String(), Attributes: keyring.AttributesOf(key),
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
	if key.Type != "AES" || key.Bits != 256 || !key.Sensitive || !key.Local {
		return failure.New(failure.WrongState, "HSM_KEY_ATTRIBUTES",
			"HSM key %s is %s-%d, sensitive %v, local %v",
			cmk.HSMKeyID, key.Type, key.Bits, key.Sensitive, key.Local)
	}
	return nil
}

// checkKCV refuses an HSM key that is certainly not the CMKs' material. KMS
// would refuse it too, but only after it was sent.
func checkKCV(ctx context.Context, backend Backend, id hsm.KeyID, recorded string) error {
	kcv, err := backend.Token.CheckValue(ctx, id)
	if err != nil {
		return err
	}
	if kcv.String() != recorded {
		return failure.New(failure.WrongState, "CHECK_VALUE",
			"HSM key %s has check value %s, the imported material had %s: it is another key", id, kcv, recorded).
			WithHint("KMS accepts only identical material; restore the HSM key from the HSM's own backup")
	}
	return nil
}
