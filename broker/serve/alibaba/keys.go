package alibaba

import (
	"cmp"
	"context"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// refer finds the key that a parameter names.
func (c *call) refer(param string) broker.Reference { return c.core.Refer(c.params[param], c.region) }

func describeKey(ctx context.Context, c *call) (result, error) {
	seen, err := c.core.DescribeKey(ctx, c.from, c.refer("KeyId"))
	if err != nil {
		return result{}, c.discreet(err)
	}
	return result{wire.KeyDescription{KeyMetadata: metadata(seen)}, seen.RequestID}, nil
}

func metadata(seen *kmsapi.KeyMetadata) wire.KeyMetadata {
	m := wire.KeyMetadata{
		KeyID: seen.KeyID, Arn: seen.ARN, KeyState: string(seen.State), KeyUsage: seen.Usage, KeySpec: seen.Spec,
		Origin: seen.Origin, ProtectionLevel: seen.ProtectionLevel, Description: seen.Description, Creator: seen.Creator,
		CreationDate: wire.Time(seen.CreatedAt), PrimaryKeyVersion: seen.PrimaryKeyVersion, DeleteDate: wire.Time(seen.DeleteAt),
		MaterialExpire: wire.Time(seen.MaterialExpireTime), Protection: seen.DeletionProtection, Instance: seen.InstanceID,
	}
	if seen.Origin == kmsapi.OriginExternal {
		m.AutomaticRotation = "Disabled" // KMS cannot rotate imported material
	}
	return m
}

func listKeys(_ context.Context, c *call) (result, error) {
	page, err := c.params.Page(1, 100)
	if err != nil {
		return result{}, err
	}
	entries := []wire.KeyEntry{}
	for _, own := range c.core.OwnKeys(c.from) {
		if cmk := c.inRegion(own); cmk != nil {
			entries = append(entries, wire.KeyEntry{KeyID: cmk.KeyID, KeyArn: cmk.ARN})
		}
	}
	list := wire.KeyList{Page: page}
	list.Keys.Key = wire.Cut(&list.Page, entries)
	return result{body: list}, nil
}

func listAliases(_ context.Context, c *call) (result, error) {
	return c.aliases(100, func(broker.OwnKey) bool { return true })
}

func listAliasesOfKey(_ context.Context, c *call) (result, error) {
	of, there := c.refer("KeyId"), false
	list, err := c.aliases(101, func(own broker.OwnKey) bool { //nolint:mnd // the limits of KMS differ
		there = there || own.Name == of.Key
		return own.Name == of.Key
	})
	if err == nil && !there {
		err = c.discreet(failure.New(failure.Denied, "NO_GRANT", ""))
	}
	return list, err
}

// aliases lists those of the keys that the caller may do something with.
func (c *call) aliases(largestPage int, wanted func(broker.OwnKey) bool) (result, error) {
	page, err := c.params.Page(0, largestPage)
	if err != nil {
		return result{}, err
	}
	var entries []wire.AliasEntry
	for _, own := range c.core.OwnKeys(c.from) {
		if cmk := c.inRegion(own); wanted(own) && cmk != nil && own.Alias != "" {
			entries = append(entries, wire.AliasEntry{KeyID: cmk.KeyID, AliasName: own.Alias, AliasArn: broker.AliasARN(cmk, own.Alias)})
		}
	}
	list := wire.AliasList{Page: page}
	list.Aliases.Alias = wire.Cut(&list.Page, entries)
	return result{body: list}, nil
}

// inRegion is the current CMK of a key where the client is, nil if there is none.
func (c *call) inRegion(own broker.OwnKey) *keyring.CMK {
	region := cmp.Or(c.region, c.core.Regions.Default)
	for _, cmk := range own.Current {
		if cmk.Region == region {
			return cmk
		}
	}
	return nil
}

// discreet makes refusals alike: whether there is a key of the ID that a caller
// tries, and what the broker calls it, is nobody's business without a grant.
func (c *call) discreet(err error) error {
	f := failure.From(err)
	if f.Kind != failure.Denied || f.Reason != "NO_GRANT" && f.Reason != "GRANT_DENIES" {
		return err
	}
	return failure.New(failure.Denied, f.Reason, "the grants do not let %s do this with the key that was named", c.from.Caller).
		WithHint("%s", hint(c.from.Caller))
}

func hint(caller authz.Caller) string {
	if caller.Unit.Unknown {
		return "grants to units were not asked, because the caller's unit is unknown: " + caller.Unit.Why
	}
	return "`kmsbrokerctl policy explain` tells an administrator what they say"
}
