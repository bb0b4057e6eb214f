package importer

import (
	"context"
	"fmt"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Reimport wraps the HSM key of a CMK again and imports it into the same CMK.
// KMS accepts only identical material, for ever, so success is the service's
// own statement that the material is the HSM's. Every step can be repeated;
// there is no journal.
func (i *Importer) Reimport(ctx context.Context, key *keyring.Key, expires time.Time, report func(Progress)) (*keyring.Key, error) {
	release, err := i.reserve(key.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	r := &run{Importer: i, report: report}
	cmk := key.Current()
	algorithm := cmk.WrappingAlgorithm
	var params *kmsapi.ImportParameters
	var wrapped []byte
	steps := []struct {
		name string
		run  func() (string, error)
	}{
		{stepPlan, func() (detail string, err error) {
			algorithm, err = r.planReimport(ctx, key, expires)
			return fmt.Sprintf("%s, %s", algorithm, expiryText(expires)), err
		}},
		{stepParameters, func() (string, error) {
			params, err = i.fetchParameters(ctx, cmk.KeyID, algorithm)
			if err != nil {
				return "", err
			}
			return "wrapping key " + fingerprint(params.PublicKey)[:16], nil
		}},
		{stepWrap, func() (string, error) {
			wrapped, err = i.export(ctx, key.Name, r.backend, key.Backend,
				hsm.WrapRequest{Key: cmk.HSMKeyID, Algorithm: algorithm, PublicKey: params.PublicKey}, cmk.KeyID)
			return fmt.Sprintf("%d bytes", len(wrapped)), err
		}},
		{stepImport, func() (string, error) {
			_, err := i.Endpoint.KMS.ImportKeyMaterial(ctx, kmsapi.ImportKeyMaterialRequest{
				KeyID: cmk.KeyID, EncryptedKeyMaterial: wrapped, ImportToken: params.ImportToken, ExpiresAt: expires,
			})
			return verifySummary(cmk), err
		}},
	}
	for _, s := range steps {
		if err := r.step(s.name, s.run); err != nil {
			return nil, err
		}
	}
	return i.Keyring.Update(key.Name, func(k *keyring.Key) error {
		k.Current().WrappingAlgorithm = algorithm
		k.Current().MaterialExpiresAt = expires
		return nil
	})
}

func (r *run) planReimport(ctx context.Context, key *keyring.Key, expires time.Time) (hsm.WrappingAlgorithm, error) {
	if err := r.checkExpiry(expires); err != nil {
		return "", err
	}
	backend, err := r.Backend(key.Backend)
	if err != nil {
		return "", err
	}
	r.backend = backend
	if err := r.checkEndpoint(key.Backend, backend); err != nil {
		return "", err
	}
	if err := checkKCV(ctx, backend, key.Current()); err != nil {
		return "", err
	}
	info, err := backend.Token.Describe(ctx)
	if err != nil {
		return "", err
	}
	token, service := info.WrappingAlgorithms, r.Endpoint.WrappingAlgorithms
	// The algorithm of the first import, which may have been asked for by name,
	// unless one of the ends has given it up since.
	if algorithm, err := ChooseAlgorithm(string(key.Current().WrappingAlgorithm), token, service); err == nil {
		return algorithm, nil
	}
	return ChooseAlgorithm("auto", token, service)
}

func (i *Importer) checkExpiry(t time.Time) error {
	if t.IsZero() || t.After(i.Now()) {
		return nil
	}
	return failure.New(failure.Invalid, "EXPIRY", "the expiry %s has passed", t.UTC().Format(time.RFC3339)).
		WithHint("give a later one with --expires, or never")
}
