package broker

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// ImportKey imports a new key, or continues an interrupted import.
func (b *Broker) ImportKey(ctx context.Context, call Call, req importer.Request, report func(importer.Progress)) (*keyring.Key, error) {
	return b.importer.Import(withCall(ctx, call), req, report)
}

// AbandonImport forgets an unfinished import; what it made stays.
func (b *Broker) AbandonImport(ctx context.Context, call Call, name string) (*keyring.Import, error) {
	return b.importer.Abandon(withCall(ctx, call), name)
}

// ReimportKey imports the material of a key again. A nil expiry leaves it as it
// is.
func (b *Broker) ReimportKey(ctx context.Context, call Call, name string, expires *string, report func(importer.Progress)) (*keyring.Key, error) {
	ctx = withCall(ctx, call)
	key, err := b.Keyring.Key(name)
	if err != nil {
		return nil, err
	}
	event := audit.Event{Action: audit.KeyReimport, Key: name, KeyID: key.Current().KeyID, Backend: key.Backend}
	_, err = b.importer.Reimport(ctx, name, expires, report)
	if err := b.finish(ctx, event, err); err != nil {
		return nil, err
	}
	return b.refresh(ctx, name)
}

// VerifyKey checks a key from the side of KMS and from the side of the HSM.
func (b *Broker) VerifyKey(ctx context.Context, call Call, name string) (*keyring.Key, []importer.Check, error) {
	ctx = withCall(ctx, call)
	key, err := b.refresh(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	checks, err := b.importer.Verify(ctx, key)
	event := audit.Event{Action: audit.KeyVerify, Key: name, KeyID: key.Current().KeyID, Backend: key.Backend}
	return key, checks, b.finish(ctx, event, err)
}

// Keys lists the keys as they were last seen, and the unfinished imports.
func (b *Broker) Keys() ([]*keyring.Key, []*keyring.Import) {
	return b.Keyring.Keys(), b.Keyring.Imports()
}

// ShowKey asks KMS for the present state of a key.
func (b *Broker) ShowKey(ctx context.Context, name string) (*keyring.Key, error) {
	return b.refresh(ctx, name)
}

// refresh asks KMS for the state of a key's current CMK and remembers it. The
// expiry of material that is gone is kept, KMS no longer tells it.
func (b *Broker) refresh(ctx context.Context, name string) (*keyring.Key, error) {
	key, err := b.Keyring.Key(name)
	if err != nil {
		return nil, err
	}
	asked := key.Current()
	cmk, err := b.Endpoint.KMS.DescribeKey(ctx, asked.KeyID)
	if err != nil {
		return nil, err
	}
	if err := sameCMK(cmk.KeyID, asked); err != nil {
		return nil, err
	}
	expires := asked.MaterialExpiresAt
	if cmk.State != kmsapi.PendingImport {
		expires = cmk.MaterialExpireTime
	}
	if cmk.State == asked.State && expires.Equal(asked.MaterialExpiresAt) {
		return key, nil
	}
	return b.Keyring.Update(name, func(k *keyring.Key) error {
		if current := k.Current(); current.KeyID == asked.KeyID {
			current.State, current.MaterialExpiresAt = cmk.State, expires
		}
		return nil
	})
}

// KeyAction is a change of a CMK's life.
type KeyAction string

// The actions; each is one operation of KMS.
const (
	EnableKey           KeyAction = "key.enable"
	DisableKey          KeyAction = "key.disable"
	DeleteKeyMaterial   KeyAction = "key.delete-material"
	ScheduleKeyDeletion KeyAction = "key.schedule-deletion"
	CancelKeyDeletion   KeyAction = "key.cancel-deletion"
)

// ChangeKey does an action to the current CMK of a key. Days, 7 to 366, count
// for ScheduleKeyDeletion only.
func (b *Broker) ChangeKey(ctx context.Context, call Call, action KeyAction, name string, days int) (*keyring.Key, error) {
	ctx = withCall(ctx, call)
	key, err := b.Keyring.Key(name)
	if err != nil {
		return nil, err
	}
	keyID := key.Current().KeyID
	event := audit.Event{Action: string(action), Key: name, KeyID: keyID, Outcome: audit.Allowed}
	// What changes something is on record before it happens.
	if err := b.record(ctx, event); err != nil {
		return nil, err
	}
	ack, err := b.change(ctx, action, keyID, days)
	event.RequestID = ack.RequestID
	if err := b.finish(ctx, event, err); err != nil {
		return nil, err
	}
	return b.refresh(ctx, name)
}

func (b *Broker) change(ctx context.Context, action KeyAction, keyID string, days int) (kmsapi.Ack, error) {
	kms := b.Endpoint.KMS
	switch action {
	case EnableKey:
		return kms.EnableKey(ctx, keyID)
	case DisableKey:
		return kms.DisableKey(ctx, keyID)
	case DeleteKeyMaterial:
		return kms.DeleteKeyMaterial(ctx, keyID)
	case CancelKeyDeletion:
		return kms.CancelKeyDeletion(ctx, keyID)
	case ScheduleKeyDeletion:
		if days < 7 || days > 366 {
			return kmsapi.Ack{}, failure.New(failure.Invalid, "DAYS", "KMS waits 7 to 366 days before it deletes a CMK, not %d", days)
		}
		return kms.ScheduleKeyDeletion(ctx, keyID, days)
	}
	return kmsapi.Ack{}, failure.New(failure.Internal, "ACTION", "unknown action %q", action)
}
