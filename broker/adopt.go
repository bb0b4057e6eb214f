package broker

import (
	"context"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Adoption gives a name to a CMK that was made without the broker.
type Adoption struct {
	Name   string
	CMK    string // key ID, ARN or alias
	Region string // empty: the default one
	// Backend and HSMKeyID say which HSM key is the material. Without them the
	// broker encrypts and decrypts, and cannot import again.
	Backend  string
	HSMKeyID hsm.KeyID
}

// AdoptKey takes a CMK into the registry. Whether the HSM key that is named is its
// material only an import shows; it is not made here.
func (b *Broker) AdoptKey(ctx context.Context, call Call, req Adoption) (*keyring.Key, error) {
	ctx = withCall(ctx, call)
	release, err := b.importer.Reserve(req.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	key, err := b.adopted(ctx, req)
	event := audit.Event{Action: audit.KeyAdopt, Key: req.Name, Backend: req.Backend}
	if err == nil {
		event.KeyID = key.Current().KeyID
		err = b.Keyring.Add(key)
	}
	return key, b.finish(ctx, event, err)
}

func (b *Broker) adopted(ctx context.Context, req Adoption) (*keyring.Key, error) {
	if err := keyring.CheckName(req.Name); err != nil {
		return nil, err
	}
	if (req.Backend == "") != (req.HSMKeyID == "") {
		return nil, failure.New(failure.Invalid, "HSM_KEY", "a backend and an HSM key are named together or not at all")
	}
	endpoint, err := b.Regions.In(req.Region)
	if err != nil {
		return nil, err
	}
	seen, err := endpoint.KMS.DescribeKey(ctx, req.CMK)
	if err != nil {
		return nil, err
	}
	if err := mayAdopt(seen, req); err != nil {
		return nil, err
	}
	cmk := keyring.CMK{
		KeyID: seen.KeyID, ARN: seen.ARN, Region: endpoint.Region, State: seen.State,
		MaterialExpiresAt: seen.MaterialExpireTime, CreatedAt: seen.CreatedAt.UTC(), AdoptedAt: b.Now().UTC(),
	}
	key := &keyring.Key{
		Name: req.Name, Backend: req.Backend, Region: endpoint.Region, Description: seen.Description, CreatedAt: b.Now().UTC(),
	}
	if req.Backend != "" {
		backend, err := b.importBackend(req.Backend)
		if err != nil {
			return nil, err
		}
		observed, err := importer.Observe(ctx, backend, req.HSMKeyID)
		if err != nil {
			return nil, err
		}
		observed.At, observed.Backend = b.Now().UTC(), req.Backend
		key.Observed = []keyring.Birth{*observed}
		cmk.HSMKeyID, cmk.CheckValue = req.HSMKeyID, observed.CheckValue
	}
	key.CMKs = []keyring.CMK{cmk}
	if strings.HasPrefix(req.CMK, kmsapi.AliasPrefix) {
		key.Alias = req.CMK
	}
	return key, nil
}

func mayAdopt(cmk *kmsapi.KeyMetadata, req Adoption) error {
	switch {
	case cmk.Usage != kmsapi.UsageEncrypt || cmk.Spec != kmsapi.KeySpecAES256:
		return failure.New(failure.Invalid, "CMK_UNSUITABLE", "CMK %s is %s for %s, not %s for %s",
			cmk.KeyID, cmk.Spec, cmk.Usage, kmsapi.KeySpecAES256, kmsapi.UsageEncrypt)
	case req.Backend != "" && cmk.Origin != kmsapi.OriginExternal:
		return failure.New(failure.Invalid, "CMK_UNSUITABLE", "CMK %s has origin %s: no HSM key is its material", cmk.KeyID, cmk.Origin).
			WithHint("adopt it without --backend and --hsm-key")
	}
	return nil
}
