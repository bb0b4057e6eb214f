package broker

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

const (
	// renewEvery is how often the broker looks for material that is due.
	renewEvery = time.Minute
	// renewAgain is how long a renewal that failed is left alone. Renewals begin
	// days ahead, so there is no hurry.
	renewAgain = 15 * time.Minute
)

// KeepMaterial imports expiring material again ahead of time, for the keys that
// say so, until ctx ends.
func (b *Broker) KeepMaterial(ctx context.Context) {
	// At the start of the daemon the backends are still logging in, and a renewal
	// that finds none counts as failed.
	b.Backends.AwaitStart(ctx)
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		b.renewDue(ctx)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// renewDue renews what is due. Old generations are renewed too: old ciphertexts
// must stay readable.
func (b *Broker) renewDue(ctx context.Context) {
	for _, key := range b.Keyring.Keys() {
		for i := range key.CMKs {
			if b.due(key, &key.CMKs[i]) {
				b.renew(ctx, key, &key.CMKs[i])
			}
		}
	}
}

// due reports whether material must be renewed now.
func (b *Broker) due(key *keyring.Key, cmk *keyring.CMK) bool {
	now := b.Now()
	switch {
	case key.Renewal.Ahead == 0, cmk.HSMKeyID == "", !cmk.SealedAt.IsZero(),
		now.Before(cmk.MaterialExpiresAt.Add(-key.Renewal.Ahead)),
		cmk.Renewed.Error != "" && now.Before(cmk.Renewed.At.Add(renewAgain)):
		return false
	default:
		return expires(cmk)
	}
}

// expires reports whether a CMK is to stay whose material will expire, or has.
// Material that was deleted before its time was deleted on purpose.
func expires(cmk *keyring.CMK) bool {
	if cmk.MaterialExpiresAt.IsZero() || !cmk.MaterialDeletedAt.IsZero() {
		return false
	}
	switch cmk.State {
	case kmsapi.PendingDeletion, deleted:
		return false
	default:
		return true
	}
}

// Expiry is when the material of a CMK expires, and what is done about it.
type Expiry struct {
	Key     string
	KeyID   string
	Region  string
	At      time.Time
	Ahead   time.Duration          // how long before it the daemon renews it, 0 if it does not
	Renewed keyring.RenewalOutcome // the last attempt at it
}

// expiring lists the material that expires, the soonest first.
func (b *Broker) expiring(keys []*keyring.Key) []Expiry {
	var all []Expiry
	for _, key := range keys {
		for i := range key.CMKs {
			if cmk := &key.CMKs[i]; expires(cmk) {
				all = append(all, Expiry{
					Key: key.Name, KeyID: cmk.KeyID, Region: cmk.Region, At: cmk.MaterialExpiresAt,
					Ahead: key.Renewal.Ahead, Renewed: cmk.Renewed,
				})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Expiry) int { return a.At.Compare(b.At) })
	return all
}

func (b *Broker) renew(ctx context.Context, key *keyring.Key, cmk *keyring.CMK) {
	log := b.Log.With("key", key.Name, "cmk", cmk.KeyID, "region", cmk.Region)
	// KMS knows what was done since at the console.
	if seen, err := b.observe(ctx, key.Name, cmk); err == nil && !b.due(key, seen) {
		return
	}
	until := b.Now().Add(key.Renewal.Lifetime)
	_, err := b.ReimportKey(ctx, Call{}, importer.Reimport{Name: key.Name, KeyID: cmk.KeyID, Until: &until}, func(importer.Progress) {})
	if err != nil && ctx.Err() != nil {
		return
	}
	outcome := keyring.RenewalOutcome{At: b.Now().UTC()}
	if err != nil {
		outcome.Error = failure.From(err).Message
		b.renewals.failed.Add(1)
		log.LogAttrs(ctx, slog.LevelError, "key material could not be renewed",
			slog.String("error", outcome.Error), slog.Time("expires", cmk.MaterialExpiresAt))
	} else {
		b.renewals.done.Add(1)
		log.Info("key material renewed", "expires", until)
	}
	_, err = b.Keyring.Update(key.Name, func(k *keyring.Key) error {
		if found, ok := k.CMK(cmk.KeyID); ok {
			found.Renewed = outcome
		}
		return nil
	})
	if err != nil {
		log.Error("outcome of a renewal could not be stored", "error", err)
	}
}
