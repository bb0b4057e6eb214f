package broker

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// SealKey makes the current HSM key of a key unextractable, for ever. Nothing can
// import its material again, so material that expires is refused: it would take
// everything encrypted with it along.
func (b *Broker) SealKey(ctx context.Context, call Call, name string) (*keyring.Key, error) {
	ctx = withCall(ctx, call)
	key, err := b.maySeal(ctx, name)
	if err != nil {
		return nil, err
	}
	token, err := b.token(key.Backend)
	if err != nil {
		return nil, err
	}
	id := key.Current().HSMKeyID
	event := audit.Event{
		Action: audit.KeySeal, Outcome: audit.Allowed, Key: name, KeyID: key.Current().KeyID, Backend: key.Backend,
		Details: map[string]string{audit.DetailHSMKeyID: string(id)},
	}
	if err := b.record(ctx, event); err != nil {
		return nil, err
	}
	_, err = token.SealKey(ctx, id)
	if err := b.finish(ctx, event, err); err != nil {
		return nil, err
	}
	return b.Keyring.Update(name, func(k *keyring.Key) error {
		for i := range k.CMKs {
			if k.CMKs[i].HSMKeyID == id {
				k.CMKs[i].SealedAt = b.Now().UTC()
			}
		}
		return nil
	})
}

// maySeal refuses a key whose material KMS will forget, has forgotten, or does not
// have yet.
func (b *Broker) maySeal(ctx context.Context, name string) (*keyring.Key, error) {
	if imp, unfinished := b.Keyring.Import(name); unfinished {
		return nil, failure.New(failure.WrongState, "IMPORT_UNFINISHED", "an import of %q is unfinished and needs its HSM key", imp.Name).
			WithHint("finish it, or give it up with `kmsbrokerctl key abandon %s`", name)
	}
	key, err := b.refresh(ctx, name)
	if err != nil {
		return nil, err
	}
	current := key.Current()
	if current.HSMKeyID == "" {
		return nil, failure.New(failure.WrongState, "NO_HSM_KEY", "key %q was adopted without an HSM key", name)
	}
	for _, cmk := range key.CMKs {
		switch {
		case cmk.HSMKeyID != current.HSMKeyID || cmk.State == deleted:
		case !cmk.MaterialExpiresAt.IsZero():
			return nil, failure.New(failure.WrongState, "MATERIAL_EXPIRES", "the material of CMK %s expires at %s and could not be imported again",
				cmk.KeyID, cmk.MaterialExpiresAt.UTC().Format("2006-01-02")).
				WithHint("`kmsbrokerctl key reimport %s --expires never` first", name)
		case !usableState(cmk.State):
			return nil, failure.New(failure.WrongState, "MATERIAL_MISSING", "CMK %s is in state %s: its material may have to be imported again", cmk.KeyID, cmk.State)
		}
	}
	return key, nil
}
