package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kmsbroker/kmsbroker/hsm"
)

const basisSeal = "hsm.Token; PKCS#11 2.40, CKA_EXTRACTABLE (cannot be changed once it is false)"

func sealingChecks() []check {
	return []check{
		{Check{"S-01", "a sealed key is no longer extractable", "The device takes the seal, and says so of the key.",
			basisSeal}, sealed, withToken},
		{Check{"S-02", "a sealed key cannot be wrapped", "No algorithm takes the key out of the token, which says NOT_EXPORTABLE.",
			"hsm.Token; PKCS#11 2.40, CKA_EXTRACTABLE and CKR_KEY_UNEXTRACTABLE"}, sealedStays, withToken},
		{Check{"S-03", "a seal cannot be undone", "Neither a generation under the same ID nor another session opens it.",
			basisSeal}, sealedForEver, withToken},
		{Check{"S-04", "sealing twice is sealing once", "A call whose answer was lost can be repeated.",
			basisToken}, sealedTwice, withToken},
		{Check{"S-05", "sealing an unknown key is NOT_FOUND", "Nobody believes that a key is sealed which is not there.",
			basisToken}, sealedUnknown, withToken},
		{Check{"S-06", "a seal changes nothing else", "Attributes and check value of the key are those from before.",
			"hsm.Token; PKCS#11 2.40, C_SetAttributeValue"}, sealedOnly, withToken},
		{Check{"S-07", "only the named key is sealed", "Keys with the same label can still be wrapped.",
			"PKCS#11 2.40, CKA_ID and CKA_LABEL, neither of which need be unique; hsm.KeyID"}, sealedAlone, withToken},
	}
}

// seal seals a key for a check that is about what follows.
func (t *trial) seal(ctx context.Context, id hsm.KeyID) error {
	_, err := t.token.SealKey(ctx, id)
	switch {
	case errors.Is(err, hsm.NotPermitted):
		return notSealed(err)
	case err != nil:
		return blocked(err, "the key cannot be sealed")
	}
	return nil
}

func notSealed(err error) error { return notSupported(err, "the token lets nobody seal a key") }

func sealed(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	answer, err := t.token.SealKey(ctx, key.ID)
	switch {
	case errors.Is(err, hsm.NotPermitted):
		return notSealed(err)
	case err != nil:
		return failedBy(err, "seal a key")
	case answer.ID != key.ID:
		return failed("sealed was key %s, the answer is about %s", key.ID, answer.ID)
	case answer.Extractable:
		return failed("the answer to the seal calls the key extractable")
	}
	read, err := t.token.Key(ctx, key.ID)
	if err != nil {
		return failedBy(err, "read a sealed key")
	}
	return demand(attribute{"CKA_EXTRACTABLE", read.Extractable, false})
}

func sealedStays(ctx context.Context, t *trial) error {
	declared, err := t.algorithms(ctx)
	if err != nil {
		return err
	}
	receiver, err := t.rsa.get(2048)
	if err != nil {
		return blocked(err, "no RSA key could be made")
	}
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	// Used before, so that what is remembered of it would show.
	for _, algorithm := range declared {
		if _, err := t.token.Wrap(ctx, hsm.WrapRequest{Key: key.ID, Algorithm: algorithm, PublicKey: receiver.spki}); err != nil {
			return blocked(err, "wrap with %s before the seal", algorithm)
		}
	}
	if err := t.seal(ctx, key.ID); err != nil {
		return err
	}
	for _, algorithm := range hsm.WrappingAlgorithms() {
		reasons := []hsm.Reason{hsm.NotExportable}
		if !slices.Contains(declared, algorithm) {
			reasons = append(reasons, hsm.AlgorithmUnsupported)
		}
		if err := t.wantStays(ctx, key.ID, algorithm, reasons...); err != nil {
			return err
		}
	}
	return nil
}

// wantStays demands that a sealed key is refused to whoever wraps it, and that
// nothing comes with the refusal.
func (t *trial) wantStays(ctx context.Context, id hsm.KeyID, algorithm hsm.WrappingAlgorithm, reasons ...hsm.Reason) error {
	receiver, err := t.rsa.get(2048)
	if err != nil {
		return blocked(err, "no RSA key could be made")
	}
	blob, err := t.token.Wrap(ctx, hsm.WrapRequest{Key: id, Algorithm: algorithm, PublicKey: receiver.spki})
	if err := wantReason(err, fmt.Sprintf("wrapping a sealed key with %s", algorithm), reasons...); err != nil {
		return err
	}
	if len(blob) > 0 {
		return failed("wrapping a sealed key with %s was refused, and answered with %d bytes", algorithm, len(blob))
	}
	return nil
}

func sealedForEver(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	if err := t.seal(ctx, key.ID); err != nil {
		return err
	}
	_, err = t.token.GenerateKey(ctx, hsm.KeySpec{ID: key.ID, Label: key.Label})
	if err := wantReason(err, "generating under the ID of a sealed key", hsm.AlreadyExists); err != nil {
		return err
	}
	if err := t.reopen(ctx); err != nil {
		return blocked(err, "the token does not open again")
	}
	read, err := t.token.Key(ctx, key.ID)
	if err != nil {
		return blocked(err, "the sealed key cannot be read in another session")
	}
	if read.Extractable {
		return failed("in another session the sealed key is extractable")
	}
	algorithm, err := t.algorithm(ctx)
	if err != nil {
		t.notef("the attribute was read in another session; there is no algorithm to wrap with")
		return nil
	}
	return t.wantStays(ctx, key.ID, algorithm, hsm.NotExportable)
}

func sealedTwice(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	if err := t.seal(ctx, key.ID); err != nil {
		return err
	}
	again, err := t.token.SealKey(ctx, key.ID)
	switch {
	case err != nil:
		return failedBy(err, "seal a key again")
	case again.ID != key.ID || again.Extractable:
		return failed("sealed again was key %s, the answer is about %s, extractable: %t", key.ID, again.ID, again.Extractable)
	}
	return nil
}

func sealedUnknown(ctx context.Context, t *trial) error {
	_, err := t.token.SealKey(ctx, hsm.NewKeyID())
	if t.readOnly(ctx, err) {
		return notSealed(err)
	}
	return wantReason(err, "sealing a key that does not exist", hsm.NotFound)
}

func sealedOnly(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	before, err := t.token.Key(ctx, key.ID)
	if err != nil {
		return blocked(err, "the key cannot be read")
	}
	value, err := t.token.CheckValue(ctx, key.ID)
	if err != nil {
		return blocked(err, "no check value can be computed")
	}
	if err := t.seal(ctx, key.ID); err != nil {
		return err
	}
	after, err := t.token.Key(ctx, key.ID)
	if err != nil {
		return failedBy(err, "read a sealed key")
	}
	before.Extractable = after.Extractable
	if appearance(*before) != appearance(*after) {
		return failed("the seal changed the key: it was %s and is %s", appearance(*before), appearance(*after))
	}
	again, err := t.token.CheckValue(ctx, key.ID)
	switch {
	case err != nil:
		return failedBy(err, "compute the check value of a sealed key")
	case again != value:
		return failed("the check value was %s before the seal and is %s", value, again)
	}
	return nil
}

func sealedAlone(ctx context.Context, t *trial) error {
	one, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	other, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	before, err := t.token.Key(ctx, other.ID)
	if err != nil {
		return blocked(err, "the key cannot be read")
	}
	if err := t.seal(ctx, one.ID); err != nil {
		return err
	}
	after, err := t.token.Key(ctx, other.ID)
	switch {
	case err != nil:
		return failedBy(err, "read a key after another one with its label was sealed")
	case before.Extractable && !after.Extractable:
		return failed("a key is no longer extractable after another one with its label was sealed")
	}
	return nil
}
