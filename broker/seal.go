package broker

import (
	"context"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/internal/fault"
)

// SealKey makes the current HSM key of a key unextractable, for ever. Nothing can
// import its material again, so material that expires is refused: it would take
// everything encrypted with it along. Other names that stand for the same HSM key
// are sealed with it, and all are held from other imports meanwhile.
func (b *Broker) SealKey(ctx context.Context, call Call, name string) (*keyring.Key, error) {
	ctx = withCall(ctx, call)
	key, err := b.Keyring.Key(name)
	if err != nil {
		return nil, err
	}
	id := key.Current().HSMKeyID
	if id == "" {
		return nil, failure.New(failure.WrongState, "NO_HSM_KEY", "key %q was adopted without an HSM key", name)
	}
	sharing := b.sharing(key.Backend, id)
	for _, other := range sharing {
		release, err := b.importer.Reserve(other)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	if err := b.maySeal(ctx, key.Backend, id); err != nil {
		return nil, err
	}
	if err := b.seal(ctx, key, id); err != nil {
		return nil, err
	}
	for _, other := range sharing {
		fault.Point("seal/mark/before")
		if _, err := b.Keyring.Update(other, func(k *keyring.Key) error { return markSealed(k, id, b.Now().UTC()) }); err != nil {
			return nil, err
		}
		fault.Point("seal/mark/after")
	}
	return b.Keyring.Key(name)
}

func markSealed(k *keyring.Key, id hsm.KeyID, now time.Time) error {
	for i := range k.CMKs {
		if k.CMKs[i].HSMKeyID == id {
			k.CMKs[i].SealedAt = now
		}
	}
	return nil
}

func (b *Broker) seal(ctx context.Context, key *keyring.Key, id hsm.KeyID) error {
	token, err := b.token(key.Backend)
	if err != nil {
		return err
	}
	event := audit.Event{
		Action: audit.KeySeal, Outcome: audit.Allowed, Key: key.Name, KeyID: key.Current().KeyID, Backend: key.Backend,
		Details: map[string]string{audit.DetailHSMKeyID: string(id)},
	}
	if err := b.record(ctx, event); err != nil {
		return err
	}
	_, err = token.SealKey(ctx, id)
	return b.finish(ctx, event, err)
}

// sharing lists the keys that an HSM key is the material of.
func (b *Broker) sharing(backend string, id hsm.KeyID) []string {
	var names []string
	for _, key := range b.Keyring.Keys() {
		if key.UsesHSMKey(backend, id) {
			names = append(names, key.Name)
		}
	}
	return names
}

// maySeal refuses an HSM key that an import still needs, or whose material KMS will
// forget, has forgotten, or cannot be asked about.
func (b *Broker) maySeal(ctx context.Context, backend string, id hsm.KeyID) error {
	for _, imp := range b.Keyring.Imports() {
		if imp.Plan.Backend == backend && imp.HSMKeyID == id {
			return failure.New(failure.WrongState, "IMPORT_UNFINISHED", "an import of %q is unfinished and needs the HSM key", imp.Name).
				WithHint("finish it, or give it up with `kmsbrokerctl key abandon %s`", imp.Name)
		}
	}
	for _, name := range b.sharing(backend, id) {
		key, err := b.Keyring.Key(name)
		if err != nil {
			return err
		}
		for i := range key.CMKs {
			if key.CMKs[i].HSMKeyID != id {
				continue
			}
			if err := b.maySealMaterial(ctx, name, &key.CMKs[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Broker) maySealMaterial(ctx context.Context, name string, cmk *keyring.CMK) error {
	seen, err := b.observe(ctx, name, cmk)
	switch {
	case err != nil:
		return err
	case seen.State == deleted:
		return nil
	case !seen.MaterialExpiresAt.IsZero():
		return failure.New(failure.WrongState, "MATERIAL_EXPIRES", "the material of CMK %s of key %q expires at %s and could not be imported again",
			seen.KeyID, name, seen.MaterialExpiresAt.UTC().Format("2006-01-02")).
			WithHint("`kmsbrokerctl key reimport %s --expires never` first", name)
	case !usableState(seen.State):
		return failure.New(failure.WrongState, "MATERIAL_MISSING", "CMK %s of key %q is in state %s: its material may have to be imported again",
			seen.KeyID, name, seen.State)
	}
	return nil
}
