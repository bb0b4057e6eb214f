package importer

import (
	"context"
	"fmt"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/internal/expiry"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Reimport wraps the HSM key of a CMK again and imports it into the same CMK.
// KMS accepts only identical material, for ever, so success is the service's
// own statement that the material is the HSM's. A nil expiry stays what it is.
// Every step can be repeated; there is no journal.
func (i *Importer) Reimport(ctx context.Context, name string, asked *string, report func(Progress)) (*keyring.Key, error) {
	release, err := i.reserve(name)
	if err != nil {
		return nil, err
	}
	defer release()
	key, err := i.Keyring.Key(name)
	if err != nil {
		return nil, err
	}
	r := &run{Importer: i, report: report}
	cmk := key.Current()
	algorithm := cmk.WrappingAlgorithm
	var expires time.Time
	var params *kmsapi.ImportParameters
	var wrapped []byte
	steps := []struct {
		name string
		run  func() (string, error)
	}{
		{stepPlan, func() (detail string, err error) {
			if expires, err = r.reimportExpiry(ctx, cmk, asked); err != nil {
				return "", err
			}
			algorithm, err = r.planReimport(ctx, key)
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
			wrapped, err = i.export(ctx, name, r.backend, key.Backend,
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
	return i.Keyring.Update(name, func(k *keyring.Key) error {
		k.Current().WrappingAlgorithm = algorithm
		k.Current().MaterialExpiresAt = expires
		return nil
	})
}

// reimportExpiry is when the material shall expire. Without a word it stays what
// KMS says, which knows better than the registry; once the material is gone KMS
// no longer tells.
func (r *run) reimportExpiry(ctx context.Context, cmk *keyring.CMK, asked *string) (time.Time, error) {
	if asked != nil {
		at, err := expiry.Parse(*asked, r.Now())
		if err != nil {
			return at, failure.New(failure.Invalid, "EXPIRY", "%v", err)
		}
		return at, r.checkExpiry(at)
	}
	seen, err := r.Endpoint.KMS.DescribeKey(ctx, cmk.KeyID)
	if err != nil {
		return time.Time{}, err
	}
	at := cmk.MaterialExpiresAt
	if seen.State != kmsapi.PendingImport {
		at = seen.MaterialExpireTime
	}
	return at, r.checkExpiry(at)
}

func (r *run) planReimport(ctx context.Context, key *keyring.Key) (hsm.WrappingAlgorithm, error) {
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
	return ChooseAlgorithm(automatic, token, service)
}
