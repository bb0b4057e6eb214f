package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func listingChecks() []check {
	return []check{
		{Check{"L-01", "a key is listed", "The administrator sees every key that was made.", basisToken}, listed, withToken},
		{Check{"L-02", "the list is ordered by ID", "Two lists can be compared.", basisToken}, listOrdered, withToken},
		{Check{"L-03", "a listed key is described as by itself", "What is listed can be believed.",
			basisToken}, listAgrees, withToken},
		{Check{"L-04", "a destroyed key is no longer listed", "The list is asked of the device, not remembered.",
			basisToken}, listEnds, withToken},
		{Check{"L-05", fmt.Sprintf("a list of %d keys is whole", manyKeys), "Lists that need several calls lose nothing at the joints.",
			"PKCS#11 2.40, C_FindObjects (repeated until nothing more is returned)"}, listWhole, withToken},
		{Check{"L-06", "an unknown key is NOT_FOUND", "The absence of a key is an answer, not a failure.", basisToken}, unknownKey, withToken},
		{Check{"L-07", "malformed IDs are refused as INVALID", "No call guesses which key is meant.",
			"hsm.ParseKeyID"}, malformedIDs, withToken},
	}
}

func (t *trial) listedKey(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	keys, err := t.token.Keys(ctx)
	if err != nil {
		return nil, failedBy(err, "list the keys")
	}
	i := slices.IndexFunc(keys, func(k hsm.Key) bool { return k.ID == id })
	if i < 0 {
		return nil, nil
	}
	return &keys[i], nil
}

func listed(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	found, err := t.listedKey(ctx, key.ID)
	if err == nil && found == nil {
		return failed("key %s was made and is not listed", key.ID)
	}
	return err
}

func listOrdered(ctx context.Context, t *trial) error {
	for i := range 3 {
		if _, err := t.prepare(ctx, fmt.Sprintf("/%d", i)); err != nil {
			return err
		}
	}
	keys, err := t.token.Keys(ctx)
	if err != nil {
		return blocked(err, "the keys cannot be listed")
	}
	for i := 1; i < len(keys); i++ {
		if keys[i].ID < keys[i-1].ID {
			return failed("%s is listed after %s", keys[i].ID, keys[i-1].ID)
		}
	}
	return nil
}

func listAgrees(ctx context.Context, t *trial) error {
	var made []hsm.KeyID
	for i := range 2 {
		key, err := t.prepare(ctx, fmt.Sprintf("/%d", i))
		if err != nil {
			return err
		}
		made = append(made, key.ID)
	}
	keys, err := t.token.Keys(ctx)
	if err != nil {
		return blocked(err, "the keys cannot be listed")
	}
	compared := 0
	for _, k := range keys {
		if !slices.Contains(made, k.ID) {
			continue
		}
		alone, err := t.token.Key(ctx, k.ID)
		if err != nil {
			return blocked(err, "the key cannot be read")
		}
		if appearance(k) != appearance(*alone) {
			return failed("listed as %s, read as %s", appearance(k), appearance(*alone))
		}
		compared++
	}
	if compared == 0 {
		return blocked(nil, "the keys are not listed")
	}
	return nil
}

func listEnds(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	// Listed once before, so that what is remembered of it would show.
	if _, err := t.listedKey(ctx, key.ID); err != nil {
		return err
	}
	if err := t.token.DestroyKey(ctx, key.ID); err != nil {
		return blocked(err, "the key cannot be destroyed")
	}
	found, err := t.listedKey(ctx, key.ID)
	if err == nil && found != nil {
		return failed("key %s was destroyed and is still listed", key.ID)
	}
	return err
}

// manyKeys is more than one batch of C_FindObjects in the PKCS#11 engine (64)
// and two messages of the plugin's protocol (32).
const manyKeys = 70

func listWhole(ctx context.Context, t *trial) error {
	made := make([]hsm.KeyID, manyKeys)
	for i := range made {
		key, err := t.prepare(ctx, "")
		if errors.Is(err, hsm.StorageFull) {
			return notSupported(err, "the token has no room for %d keys", manyKeys)
		}
		if err != nil {
			return err
		}
		made[i] = key.ID
	}
	keys, err := t.token.Keys(ctx)
	if err != nil {
		return failedBy(err, "list the keys")
	}
	missing := 0
	for _, id := range made {
		if !slices.ContainsFunc(keys, func(k hsm.Key) bool { return k.ID == id }) {
			missing++
		}
	}
	if missing > 0 {
		return failed("%d of %d keys are missing from a list of %d", missing, manyKeys, len(keys))
	}
	return nil
}

func unknownKey(ctx context.Context, t *trial) error {
	_, err := t.token.Key(ctx, hsm.NewKeyID())
	return wantReason(err, "reading a key that does not exist", hsm.NotFound)
}

func malformedIDs(ctx context.Context, t *trial) error {
	receiver, err := t.rsa.get(2048)
	if err != nil {
		return blocked(err, "no RSA key could be made")
	}
	algorithm, err := t.algorithm(ctx)
	if err != nil {
		algorithm = hsm.OAEPSHA1
	}
	// Nobody is asked to destroy the key with the empty ID: there may be one.
	_, err = t.token.Key(ctx, "")
	if err := wantReason(err, "Key with an empty ID", hsm.Invalid); err != nil {
		return err
	}
	for _, id := range malformed() {
		_, read := t.token.Key(ctx, id)
		_, computed := t.token.CheckValue(ctx, id)
		_, wrapped := t.token.Wrap(ctx, hsm.WrapRequest{Key: id, Algorithm: algorithm, PublicKey: receiver.spki})
		_, sealed := t.token.SealKey(ctx, id)
		for _, answer := range []struct {
			call string
			err  error
		}{
			{"Key", read}, {"CheckValue", computed}, {"Wrap", wrapped}, {"SealKey", sealed},
			{"DestroyKey", t.token.DestroyKey(ctx, id)},
		} {
			if err := wantReason(answer.err, answer.call+" with the ID "+quoted(id), hsm.Invalid); err != nil {
				return err
			}
		}
	}
	return nil
}

// quoted shortens a malformed ID for people.
func quoted(id hsm.KeyID) string {
	const enough = 20
	if len(id) > enough {
		return fmt.Sprintf("%q...", string(id[:enough]))
	}
	return fmt.Sprintf("%q", string(id))
}
