package importer

import (
	"context"
	"fmt"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/internal/expiry"
	"github.com/kmsbroker/kmsbroker/internal/fault"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Reimport asks for the material of a key to be imported again.
type Reimport struct {
	Name    string
	KeyID   string     // of one CMK, of any generation; empty: the current ones of all regions
	Expires *string    // as package expiry reads it; nil: what it is
	Until   *time.Time // instead of Expires
	Renew   *string    // as in Request; nil: unchanged
}

// Reimport wraps the HSM key of a CMK again and imports it into the same CMK.
// KMS accepts only identical material, for ever, so success is the service's
// own statement that the material is the HSM's. Every step can be repeated; there
// is no journal.
func (i *Importer) Reimport(ctx context.Context, req Reimport, report func(Progress)) (*keyring.Key, error) {
	release, err := i.Reserve(req.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	key, err := i.Keyring.Key(req.Name)
	if err != nil {
		return nil, err
	}
	cmks := key.CurrentCMKs()
	if req.KeyID != "" {
		cmk, ok := key.CMK(req.KeyID)
		if !ok {
			return nil, failure.New(failure.NotFound, "CMK_NOT_FOUND", "key %q has no CMK %.80s", req.Name, req.KeyID)
		}
		cmks = []*keyring.CMK{cmk}
	}
	var failed []error
	for _, cmk := range cmks {
		r := &reimport{run: run{Importer: i, report: report}, req: req, key: key, cmk: cmk}
		if err := r.do(ctx); err != nil {
			failed = append(failed, err)
		}
	}
	if err := unfinishedRegions(failed, len(cmks)); err != nil {
		return nil, err
	}
	return i.Keyring.Key(req.Name)
}

// reimport is one attempt at one CMK.
type reimport struct {
	run
	req       Reimport
	key       *keyring.Key
	cmk       *keyring.CMK
	algorithm hsm.WrappingAlgorithm
	expires   time.Time
	renewal   keyring.Renewal
	imported  string // the request that took the material
}

func (r *reimport) do(ctx context.Context) (err error) {
	if r.endpoint, err = r.Endpoints.In(r.cmk.Region); err != nil {
		return err
	}
	if err := r.takeSteps(ctx); err != nil {
		return err
	}
	fault.Point("reimport/finish/before")
	_, err = r.Keyring.Update(r.key.Name, func(k *keyring.Key) error {
		k.Renewal = r.renewal
		if export := k.LastExport(r.cmk.KeyID); export != nil && export.WrappingKeySHA256 == fingerprint(r.params.PublicKey) {
			export.Imported = r.imported
		}
		if cmk, ok := k.CMK(r.cmk.KeyID); ok {
			cmk.WrappingAlgorithm, cmk.MaterialExpiresAt, cmk.MaterialDeletedAt = r.algorithm, r.expires, time.Time{}
			cmk.Renewed = keyring.RenewalOutcome{} // a renewal that failed is mended
		}
		return nil
	})
	fault.Point("reimport/finish/after")
	return err
}

func (r *reimport) takeSteps(ctx context.Context) error {
	for _, s := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{stepPlan, r.plan}, {stepParameters, r.fetch}, {stepWrap, r.wrapAgain}, {stepImport, r.deliver},
	} {
		if err := r.step(r.cmk.Region, s.name, func() (string, error) { return s.run(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

func (r *reimport) plan(ctx context.Context) (string, error) {
	if r.cmk.HSMKeyID == "" {
		return "", failure.New(failure.WrongState, "NO_HSM_KEY", "key %q was adopted without an HSM key", r.key.Name).
			WithHint("adopt it again with --backend and --hsm-key")
	}
	if err := notSealed(r.key.Name, r.cmk); err != nil {
		return "", err
	}
	if err := r.planExpiry(ctx); err != nil {
		return "", err
	}
	if err := r.planExport(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s", r.algorithm, expiryText(r.expires)), nil
}

// notSealed refuses a key that its HSM will never export again.
func notSealed(name string, cmk *keyring.CMK) error {
	if cmk.SealedAt.IsZero() {
		return nil
	}
	return failure.New(failure.WrongState, "KEY_SEALED", "HSM key %s of %q was sealed at %s and can never be exported again",
		cmk.HSMKeyID, name, cmk.SealedAt.UTC().Format(time.RFC3339)).
		WithHint("`kmsbrokerctl key rotate %s` makes a new one", name)
}

// planExpiry decides when the material shall expire. Without a word it stays what
// KMS says, which knows better than the registry; once the material is gone KMS
// no longer tells.
func (r *reimport) planExpiry(ctx context.Context) error {
	r.expires, r.renewal = r.cmk.MaterialExpiresAt, r.key.Renewal
	lifetime := lifetimeOf(r.key, r.cmk)
	switch {
	case r.req.Until != nil:
		r.expires = r.req.Until.UTC().Truncate(time.Second)
	case r.req.Expires != nil:
		at, err := expiry.Parse(*r.req.Expires, r.Now())
		if err != nil {
			return failure.New(failure.Invalid, "EXPIRY", "%v", err)
		}
		r.expires, lifetime = at, at.Sub(r.Now())
	default:
		seen, err := r.endpoint.KMS.DescribeKey(ctx, r.cmk.KeyID)
		if err != nil {
			return err
		}
		if seen.State != kmsapi.PendingImport {
			r.expires = seen.MaterialExpireTime
		}
	}
	if err := r.checkExpiry(r.expires); err != nil {
		return err
	}
	if r.req.Renew == nil {
		return nil
	}
	renewal, err := r.readRenewal(*r.req.Renew, r.expires, lifetime)
	r.renewal = renewal
	return err
}

func (r *reimport) planExport(ctx context.Context) error {
	backend, err := r.Backend(r.key.Backend)
	if err != nil {
		return err
	}
	r.backend = backend
	if err := checkEndpoint(r.endpoint, r.key.Backend, backend); err != nil {
		return err
	}
	if err := checkKCV(ctx, backend, r.cmk.HSMKeyID, r.cmk.CheckValue); err != nil {
		return err
	}
	info, err := backend.Token.Describe(ctx)
	if err != nil {
		return err
	}
	token, service := info.WrappingAlgorithms, r.endpoint.WrappingAlgorithms
	// The algorithm of the first import, which may have been asked for by name,
	// unless one of the ends has given it up since.
	if algorithm, err := ChooseAlgorithm(string(r.cmk.WrappingAlgorithm), token, service); err == nil {
		r.algorithm = algorithm
		return nil
	}
	r.algorithm, err = ChooseAlgorithm(automatic, token, service)
	return err
}

func (r *reimport) fetch(ctx context.Context) (detail string, err error) {
	if r.params, err = fetchParameters(ctx, r.endpoint.KMS, r.cmk.KeyID, r.algorithm); err != nil {
		return "", err
	}
	return "wrapping key " + fingerprint(r.params.PublicKey)[:16], nil
}

func (r *reimport) wrapAgain(ctx context.Context) (detail string, err error) {
	remember := func(export *keyring.Export) error {
		_, err := r.Keyring.Update(r.key.Name, func(k *keyring.Key) error {
			k.Exports = append(k.Exports, *export)
			return nil
		})
		return err
	}
	r.wrapped, err = r.export(ctx, r.key.Name, r.key.Backend, r.cmk.KeyID,
		hsm.WrapRequest{Key: r.cmk.HSMKeyID, Algorithm: r.algorithm, PublicKey: r.params.PublicKey}, remember)
	return fmt.Sprintf("%d bytes", len(r.wrapped)), err
}

func (r *reimport) deliver(ctx context.Context) (string, error) {
	ack, err := r.endpoint.KMS.ImportKeyMaterial(ctx, kmsapi.ImportKeyMaterialRequest{
		KeyID: r.cmk.KeyID, EncryptedKeyMaterial: r.wrapped, ImportToken: r.params.ImportToken, ExpiresAt: r.expires,
	})
	if err != nil {
		return "", err
	}
	r.imported = ack.RequestID
	return fmt.Sprintf("KMS accepted the material of HSM key %s again: it is identical to the first import", r.cmk.HSMKeyID), nil
}
