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
// remembers what it is told. A region that does not answer leaves what was known
// of it; only the home region's failure is the caller's.
func (b *Broker) refresh(ctx context.Context, name string) (*keyring.Key, error) {
	key, err := b.Keyring.Key(name)
	if err != nil {
		return nil, err
	}
	home := key.Current().KeyID
	var failed error
	for i := range key.CMKs {
		if _, err := b.observe(ctx, name, &key.CMKs[i]); err != nil && key.CMKs[i].KeyID == home {
			failed = err
		}
	}
	if failed != nil {
		return nil, failed
	}
	return b.Keyring.Key(name)
}

// seen is refresh after something was done: it was, whether KMS can be asked for
// the result or not.
func (b *Broker) seen(ctx context.Context, name string, cmks []*keyring.CMK) (*keyring.Key, error) {
	for _, cmk := range cmks {
		if _, err := b.observe(ctx, name, cmk); err != nil {
			b.Log.Warn("a CMK's new state is not known yet", "key", name, "cmk", cmk.KeyID, "error", err)
		}
	}
	return b.Keyring.Key(name)
}

// observe asks KMS for the state of one CMK and remembers it. Material that is gone
// before its time was deleted on purpose.
func (b *Broker) observe(ctx context.Context, name string, cmk *keyring.CMK) (*keyring.CMK, error) {
	answer, err := b.describe(ctx, cmk)
	if err != nil {
		return nil, err
	}
	now := *cmk
	now.State, now.MaterialExpiresAt = answer.State, expiryIn(cmk, answer)
	switch early := now.MaterialExpiresAt.IsZero() || b.Now().Before(now.MaterialExpiresAt); {
	case now.State == kmsapi.PendingImport && early && now.MaterialDeletedAt.IsZero():
		now.MaterialDeletedAt = b.Now().UTC()
	case usableState(now.State):
		now.MaterialDeletedAt = time.Time{} // somebody imported it again
	}
	if now == *cmk {
		return cmk, nil
	}
	_, err = b.Keyring.Update(name, func(k *keyring.Key) error {
		if stored, ok := k.CMK(cmk.KeyID); ok {
			stored.State, stored.MaterialExpiresAt, stored.MaterialDeletedAt = now.State, now.MaterialExpiresAt, now.MaterialDeletedAt
		}
		return nil
	})
	return &now, err
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

// expiryIn is when the material expires. Once it is gone KMS no longer tells.
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
