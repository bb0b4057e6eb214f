package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Detail is what KMS says of one CMK.
type Detail struct {
	Region   string
	Metadata *kmsapi.KeyMetadata
	Tags     []kmsapi.Tag // without the broker's own
}

// KeyDetails asks KMS for all that it says of CMKs.
func (b *Broker) KeyDetails(ctx context.Context, target Target) ([]Detail, error) {
	_, cmks, err := b.cmks(target)
	if err != nil {
		return nil, err
	}
	details := make([]Detail, len(cmks))
	for i, cmk := range cmks {
		endpoint, err := b.Regions.In(cmk.Region)
		if err != nil {
			return nil, err
		}
		seen, err := endpoint.KMS.DescribeKey(ctx, cmk.KeyID)
		if err != nil {
			return nil, err
		}
		if err := sameCMK(seen.KeyID, cmk); err != nil {
			return nil, err
		}
		tags, err := endpoint.KMS.KeyTags(ctx, cmk.KeyID)
		if err != nil {
			return nil, err
		}
		details[i] = Detail{
			Region: cmk.Region, Metadata: seen,
			Tags: slices.DeleteFunc(tags, func(t kmsapi.Tag) bool { return isOurTag(t.Key) }),
		}
	}
	return details, nil
}

func isOurTag(name string) bool { return name == importer.TagInstance || name == importer.TagImport }

// deleted is the state of a CMK that KMS no longer knows.
const deleted kmsapi.KeyState = "Deleted"

// refresh asks KMS for the state of a key's CMKs, of all generations, and
// remembers it. A region that does not answer leaves what was known of it, unless
// it is the home region. The expiry of material that is gone is kept, KMS no
// longer tells it.
func (b *Broker) refresh(ctx context.Context, name string) (*keyring.Key, error) {
	key, err := b.Keyring.Key(name)
	if err != nil {
		return nil, err
	}
	seen := map[string]*kmsapi.KeyMetadata{}
	for i := range key.CMKs {
		cmk := &key.CMKs[i]
		answer, err := b.describe(ctx, cmk)
		if err != nil {
			if cmk.KeyID == key.Current().KeyID {
				return nil, err
			}
			continue
		}
		seen[cmk.KeyID] = answer
	}
	if !slices.ContainsFunc(key.CMKs, func(c keyring.CMK) bool { return seen[c.KeyID] != nil && differs(&c, seen[c.KeyID]) }) {
		return key, nil
	}
	return b.Keyring.Update(name, func(k *keyring.Key) error {
		for i := range k.CMKs {
			if answer := seen[k.CMKs[i].KeyID]; answer != nil {
				k.CMKs[i].State = answer.State
				k.CMKs[i].MaterialExpiresAt = expiryIn(&k.CMKs[i], answer)
			}
		}
		return nil
	})
}

func (b *Broker) describe(ctx context.Context, cmk *keyring.CMK) (*kmsapi.KeyMetadata, error) {
	endpoint, err := b.Regions.In(cmk.Region)
	if err != nil {
		return nil, err
	}
	answer, err := endpoint.KMS.DescribeKey(ctx, cmk.KeyID)
	if e, ok := errors.AsType[*kmsapi.Error](err); ok && e.Code == kmsapi.CodeKeyNotFound && cmk.State == kmsapi.PendingDeletion {
		return &kmsapi.KeyMetadata{KeyID: cmk.KeyID, State: deleted}, nil
	}
	if err != nil {
		return nil, err
	}
	return answer, sameCMK(answer.KeyID, cmk)
}

func differs(cmk *keyring.CMK, answer *kmsapi.KeyMetadata) bool {
	return cmk.State != answer.State || !cmk.MaterialExpiresAt.Equal(expiryIn(cmk, answer))
}

func expiryIn(cmk *keyring.CMK, answer *kmsapi.KeyMetadata) (at time.Time) {
	if answer.State == kmsapi.PendingImport || answer.State == deleted {
		return cmk.MaterialExpiresAt
	}
	return answer.MaterialExpireTime
}

// usableState reports that KMS holds the material of a CMK and means to keep it.
func usableState(state kmsapi.KeyState) bool {
	return state == kmsapi.Enabled || state == kmsapi.Disabled
}
