package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Target names CMKs of a key: the one of an ID, of any generation; or the current
// one of a region; or the current ones of all regions.
type Target struct {
	Key    string
	Region string
	KeyID  string
}

// cmks returns the CMKs that a target names.
func (b *Broker) cmks(target Target) (*keyring.Key, []*keyring.CMK, error) {
	key, err := b.Keyring.Key(target.Key)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case target.KeyID != "":
		cmk, ok := key.CMK(target.KeyID)
		if !ok {
			return nil, nil, failure.New(failure.NotFound, "CMK_NOT_FOUND", "key %q has no CMK %.80s", key.Name, target.KeyID).
				WithHint("`kmsbrokerctl key show %s` lists them", key.Name)
		}
		return key, []*keyring.CMK{cmk}, nil
	case target.Region != "":
		cmk, ok := key.CurrentIn(target.Region)
		if !ok {
			return nil, nil, failure.New(failure.NotFound, "REGION", "key %q has no CMK in region %.40q", key.Name, target.Region).
				WithHint("it has one in %s", strings.Join(key.Regions(), ", "))
		}
		return key, []*keyring.CMK{cmk}, nil
	default:
		return key, key.CurrentCMKs(), nil
	}
}

// Change is what can be done to CMKs.
type Change struct {
	action string // of the audit trail
	do     func(ctx context.Context, kms kmsapi.KMS, cmk *keyring.CMK) (kmsapi.Ack, error)
	err    error
	// reached reports whether a CMK in that state is where the change leads; nil when
	// the state does not tell. KMS refuses a change that it has made already, so after
	// a lost answer the state is looked at instead of trying again.
	reached func(kmsapi.KeyState) bool
}

// EnableKey makes CMKs usable again.
func EnableKey() Change { return Change{action: "key.enable", do: byID(kmsapi.KMS.EnableKey)} }

// DisableKey makes CMKs unusable until they are enabled.
func DisableKey() Change { return Change{action: "key.disable", do: byID(kmsapi.KMS.DisableKey)} }

// DeleteKeyMaterial has KMS forget the material, which can be imported again.
func DeleteKeyMaterial() Change {
	return Change{action: "key.delete-material", do: byID(kmsapi.KMS.DeleteKeyMaterial)}
}

// CancelKeyDeletion keeps CMKs whose deletion was scheduled.
func CancelKeyDeletion() Change {
	return Change{
		action: "key.cancel-deletion", do: byID(kmsapi.KMS.CancelKeyDeletion),
		reached: func(state kmsapi.KeyState) bool { return state != kmsapi.PendingDeletion },
	}
}

func byID(operation func(kmsapi.KMS, context.Context, string) (kmsapi.Ack, error)) func(context.Context, kmsapi.KMS, *keyring.CMK) (kmsapi.Ack, error) {
	return func(ctx context.Context, kms kmsapi.KMS, cmk *keyring.CMK) (kmsapi.Ack, error) {
		return operation(kms, ctx, cmk.KeyID)
	}
}

// ScheduleKeyDeletion has KMS delete CMKs after 7 to 366 days.
func ScheduleKeyDeletion(days int) Change {
	c := Change{
		action:  "key.schedule-deletion",
		reached: func(state kmsapi.KeyState) bool { return state == kmsapi.PendingDeletion },
	}
	if days < 7 || days > 366 {
		c.err = failure.New(failure.Invalid, "DAYS", "KMS waits 7 to 366 days before it deletes a CMK, not %d", days)
	}
	c.do = func(ctx context.Context, kms kmsapi.KMS, cmk *keyring.CMK) (kmsapi.Ack, error) {
		return kms.ScheduleKeyDeletion(ctx, cmk.KeyID, days)
	}
	return c
}

// ProtectKey sets the deletion protection of CMKs, with a reason for people.
func ProtectKey(enabled bool, reason string) Change {
	return Change{action: "key.protect", do: func(ctx context.Context, kms kmsapi.KMS, cmk *keyring.CMK) (kmsapi.Ack, error) {
		return kms.SetDeletionProtection(ctx, cmk.ARN, enabled, reason)
	}}
}

// TagKey sets tags of CMKs and removes others, by name. The broker's own tags
// find a CMK again whose creation was not answered, so they are left alone.
func TagKey(set []kmsapi.Tag, remove []string) Change {
	c := Change{action: "key.tag"}
	for _, name := range append(tagNames(set), remove...) {
		if isOurTag(name) {
			c.err = failure.New(failure.Invalid, "TAG", "tag %q is the broker's own", name)
		}
	}
	c.do = func(ctx context.Context, kms kmsapi.KMS, cmk *keyring.CMK) (ack kmsapi.Ack, err error) {
		if len(set) > 0 {
			if ack, err = kms.TagKey(ctx, cmk.KeyID, set); err != nil {
				return ack, err
			}
		}
		if len(remove) > 0 {
			ack, err = kms.UntagKey(ctx, cmk.KeyID, remove)
		}
		return ack, err
	}
	return c
}

func tagNames(tags []kmsapi.Tag) []string {
	names := make([]string, len(tags))
	for i, tag := range tags {
		names[i] = tag.Key
	}
	return names
}

// ChangeKey makes a change to CMKs. What was done in one region stays done when
// another refuses.
func (b *Broker) ChangeKey(ctx context.Context, call Call, change Change, target Target) (*keyring.Key, error) {
	ctx = withCall(ctx, call)
	if change.err != nil {
		return nil, change.err
	}
	key, cmks, err := b.cmks(target)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, cmk := range cmks {
		if err := b.changeCMK(ctx, change, key, cmk); err != nil {
			failed = append(failed, err)
		}
	}
	key, err = b.seen(ctx, key.Name, cmks)
	return key, errors.Join(inRegions(failed, cmks), err)
}

func (b *Broker) changeCMK(ctx context.Context, change Change, key *keyring.Key, cmk *keyring.CMK) error {
	endpoint, err := b.Regions.In(cmk.Region)
	if err != nil {
		return err
	}
	event := audit.Event{Action: change.action, Key: key.Name, KeyID: cmk.KeyID, Outcome: audit.Allowed}
	// What changes something is on record before it happens.
	if err := b.record(ctx, event); err != nil {
		return err
	}
	ack, err := change.do(ctx, endpoint.KMS, cmk)
	b.dataKeys.Drop(key.Name) // KMS is asked whether they may still be used
	event.RequestID = ack.RequestID
	if b.happened(ctx, change, cmk, err) {
		err = nil
	}
	return b.finish(ctx, event, err)
}

// happened reports that a change was made although its answer was lost.
func (b *Broker) happened(ctx context.Context, change Change, cmk *keyring.CMK, err error) bool {
	e, ok := errors.AsType[*kmsapi.Error](err)
	if !ok || !e.OutcomeUnknown() || change.reached == nil {
		return false
	}
	seen, err := b.describe(ctx, cmk)
	return err == nil && change.reached(seen.State)
}

// inRegions makes one failure of several, of the kind of the first.
func inRegions(failed []error, cmks []*keyring.CMK) error {
	if len(failed) == 0 || len(cmks) == 1 {
		return errors.Join(failed...)
	}
	return failure.Several(fmt.Sprintf("%d of %d CMKs", len(failed), len(cmks)), failed)
}

// SetDescription sets the description of CMKs, and of the key when all are meant.
func (b *Broker) SetDescription(ctx context.Context, call Call, target Target, description string) (*keyring.Key, error) {
	change := Change{action: "key.describe", do: func(ctx context.Context, kms kmsapi.KMS, cmk *keyring.CMK) (kmsapi.Ack, error) {
		return kms.UpdateKeyDescription(ctx, cmk.KeyID, description)
	}}
	if len(description) > kmsapi.MaxDescription {
		change.err = failure.New(failure.Invalid, "DESCRIPTION", "the description is longer than %d bytes", kmsapi.MaxDescription)
	}
	key, err := b.ChangeKey(ctx, call, change, target)
	if err != nil || target.KeyID != "" || target.Region != "" {
		return key, err
	}
	return b.Keyring.Update(target.Key, func(k *keyring.Key) error {
		k.Description = description
		return nil
	})
}
