package conformance

import (
	"context"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func destroyChecks() []check {
	return []check{
		{Check{"D-01", "a destroyed key is NOT_FOUND", "The key is gone.", basisToken}, destroyed, withToken},
		{Check{"D-02", "destroying twice is NOT_FOUND", "After an unknown outcome a repeat tells that the first attempt worked.",
			basisToken}, destroyedTwice, withToken},
		{Check{"D-03", "only the named key is destroyed", "Keys with the same label are left alone.",
			"PKCS#11 2.40, CKA_ID and CKA_LABEL, neither of which need be unique; hsm.KeyID"}, destroyedAlone, withToken},
		{Check{"D-04", "a destroyed key cannot be used", "No handle outlives the key.",
			"PKCS#11 2.40, C_DestroyObject"}, destroyedUseless, withToken},
	}
}

func destroyed(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	if err := t.token.DestroyKey(ctx, key.ID); err != nil {
		return failedBy(err, "destroy a key")
	}
	_, err = t.token.Key(ctx, key.ID)
	return wantReason(err, "reading a destroyed key", hsm.NotFound)
}

func destroyedTwice(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	if err := t.token.DestroyKey(ctx, key.ID); err != nil {
		return blocked(err, "the key cannot be destroyed")
	}
	return wantReason(t.token.DestroyKey(ctx, key.ID), "destroying a key again", hsm.NotFound)
}

func destroyedAlone(ctx context.Context, t *trial) error {
	one, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	other, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	if err := t.token.DestroyKey(ctx, one.ID); err != nil {
		return blocked(err, "the key cannot be destroyed")
	}
	if _, err := t.token.Key(ctx, other.ID); err != nil {
		return failedBy(err, "read a key after another one with its label was destroyed")
	}
	return nil
}

func destroyedUseless(ctx context.Context, t *trial) error {
	algorithm, err := t.algorithm(ctx)
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
	request := hsm.WrapRequest{Key: key.ID, Algorithm: algorithm, PublicKey: receiver.spki}
	// Used once before, so that what is remembered of it would show.
	if _, err := t.token.Wrap(ctx, request); err != nil {
		return blocked(err, "the key cannot be wrapped")
	}
	if err := t.token.DestroyKey(ctx, key.ID); err != nil {
		return blocked(err, "the key cannot be destroyed")
	}
	_, err = t.token.Wrap(ctx, request)
	if err := wantReason(err, "wrapping a destroyed key", hsm.NotFound); err != nil {
		return err
	}
	_, err = t.token.CheckValue(ctx, key.ID)
	return wantReason(err, "the check value of a destroyed key", hsm.NotFound)
}
