package broker

import (
	"context"
	"slices"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/evidence"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// ImportKey makes a new key, rotates one or brings one to more regions, or
// continues what of these was interrupted.
func (b *Broker) ImportKey(ctx context.Context, call Call, req importer.Request, report func(importer.Progress)) (*keyring.Key, error) {
	return b.importer.Import(withCall(ctx, call), req, report)
}

// PlanImport checks what ImportKey would, and tells the steps that it would take.
func (b *Broker) PlanImport(ctx context.Context, call Call, req importer.Request) ([]importer.Progress, error) {
	return b.importer.Plan(withCall(ctx, call), req)
}

// AbandonImport forgets an unfinished import; what it made stays.
func (b *Broker) AbandonImport(ctx context.Context, call Call, name string) (*keyring.Import, error) {
	return b.importer.Abandon(withCall(ctx, call), name)
}

// ReimportKey imports the material of a key again.
func (b *Broker) ReimportKey(ctx context.Context, call Call, req importer.Reimport, report func(importer.Progress)) (*keyring.Key, error) {
	ctx = withCall(ctx, call)
	key, err := b.Keyring.Key(req.Name)
	if err != nil {
		return nil, err
	}
	event := audit.Event{Action: audit.KeyReimport, Key: req.Name, KeyID: key.Current().KeyID, Backend: key.Backend}
	if req.KeyID != "" {
		event.KeyID = req.KeyID
	}
	_, err = b.importer.Reimport(ctx, req, report)
	if err := b.finish(ctx, event, err); err != nil {
		return nil, err
	}
	imported := key.CurrentCMKs()
	if cmk, ok := key.CMK(req.KeyID); ok {
		imported = []*keyring.CMK{cmk}
	}
	return b.seen(ctx, req.Name, imported)
}

// VerifyKey checks a key from the side of KMS and from the side of the HSM.
// With material, the material is imported again, so that the service itself
// vouches for what it holds.
func (b *Broker) VerifyKey(ctx context.Context, call Call, name string, material bool) (*keyring.Key, []importer.Check, error) {
	key, err := b.refresh(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	checks, err := b.importer.Verify(withCall(ctx, call), key)
	event := audit.Event{Action: audit.KeyVerify, Key: name, KeyID: key.Current().KeyID, Backend: key.Backend}
	if err := b.finish(withCall(ctx, call), event, err); err != nil || !material {
		return key, checks, err
	}
	if slices.ContainsFunc(checks, func(c importer.Check) bool { return !c.Passed }) {
		// A check does not bring back what was deleted, nor send what differs.
		return key, append(checks, importer.Check{Name: "material", Detail: "not tried, because another check failed"}), nil
	}
	_, err = b.ReimportKey(ctx, call, importer.Reimport{Name: name}, func(importer.Progress) {})
	return key, append(checks, importer.MaterialCheck(key, err)), nil
}

// Keys lists the keys as they were last seen, and the unfinished imports.
func (b *Broker) Keys() ([]*keyring.Key, []*keyring.Import) {
	return b.Keyring.Keys(), b.Keyring.Imports()
}

// ShowKey asks KMS for the present state of a key.
func (b *Broker) ShowKey(ctx context.Context, name string) (*keyring.Key, error) {
	return b.refresh(ctx, name)
}

// ForgetKey removes a key from the registry. Its CMKs and HSM keys stay, and the
// returned key names them.
func (b *Broker) ForgetKey(ctx context.Context, call Call, name string) (*keyring.Key, error) {
	ctx = withCall(ctx, call)
	release, err := b.importer.Reserve(name)
	if err != nil {
		return nil, err
	}
	defer release()
	key, err := b.Keyring.Key(name)
	if err != nil {
		return nil, err
	}
	event := audit.Event{Action: audit.KeyForget, Key: name, KeyID: key.Current().KeyID, Backend: key.Backend, Outcome: audit.Allowed}
	if err := b.record(ctx, event); err != nil {
		return nil, err
	}
	return key, b.finish(ctx, event, b.Keyring.Forget(name))
}

// KeyEvidence returns the signed history of a key: where its HSM keys were born,
// and every time one left its HSM, wrapped. The fingerprint is of the signing key.
func (b *Broker) KeyEvidence(ctx context.Context, call Call, name string) (file []byte, fingerprint string, err error) {
	key, err := b.Keyring.Key(name)
	if err != nil {
		return nil, "", err
	}
	unfinished, _ := b.Keyring.Import(name)
	history := key.History(unfinished)
	file, err = b.Evidence.Sign(evidence.Record{
		IssuedAt: b.Now().UTC(), Broker: evidence.Broker{InstanceID: b.Keyring.InstanceID(), Version: b.Version},
		Key: key.Name, CMKs: key.CMKs, Births: history.Births, Exports: history.Exports, Observed: history.Observed,
	})
	event := audit.Event{Action: audit.KeyEvidence, Key: name, KeyID: key.Current().KeyID}
	return file, evidence.Fingerprint(b.Evidence.Public()), b.finish(withCall(ctx, call), event, err)
}
