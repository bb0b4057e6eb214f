package broker

import (
	"context"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Reference is what a caller who speaks KMS's own protocol means by a KeyId.
type Reference struct {
	Key    string // the broker's name; of nothing that there is, what the caller said
	Region string // "" is the home region
	KeyID  string // of the CMK that was named; "" when it was the key
}

// aliasPrefix begins what KMS takes for an alias.
const aliasPrefix = "alias/"

// Refer finds the key that a caller means by the ID or ARN of one of its CMKs, of
// any generation, by its alias or the alias' ARN, or by the broker's own name.
// region is the one that the caller is in, "" if it does not say.
//
// That there is such a key is no secret between the broker and its own doors; a
// door tells the caller nothing that the policy has not allowed.
func (b *Broker) Refer(id, region string) Reference {
	unknown := Reference{Key: id, Region: region}
	resource, arn := id, strings.HasPrefix(id, "acs:")
	if arn {
		resource = id[strings.LastIndexByte(id, ':')+1:]
	}
	if cmkID, isKey := strings.CutPrefix(resource, "key/"); isKey && arn {
		resource = cmkID
	}
	if key, ok := b.Keyring.ByCMK(resource); ok {
		cmk, _ := key.CMK(resource)
		if region != "" && cmk.Region != region || arn && cmk.ARN != id {
			return unknown // KMS keeps regions apart
		}
		return Reference{Key: key.Name, Region: cmk.Region, KeyID: cmk.KeyID}
	}
	if strings.HasPrefix(resource, aliasPrefix) {
		for key := range b.Keyring.All() {
			if found, ok := aliased(key, resource, region, id, arn); ok {
				return found
			}
		}
		return unknown
	}
	return unknown
}

// aliased reports whether a key has an alias, and if that is given with an ARN, where.
func aliased(key *keyring.Key, alias, region, id string, arn bool) (Reference, bool) {
	if key.Alias != alias {
		return Reference{}, false
	}
	if !arn {
		return Reference{Key: key.Name, Region: region}, true
	}
	for _, cmk := range key.CurrentCMKs() {
		if AliasARN(cmk, alias) == id && (region == "" || region == cmk.Region) {
			return Reference{Key: key.Name, Region: cmk.Region}, true
		}
	}
	return Reference{}, false
}

// AliasARN is the ARN that an alias of a CMK has.
func AliasARN(cmk *keyring.CMK, alias string) string {
	return strings.TrimSuffix(cmk.ARN, "key/"+cmk.KeyID) + alias
}

// DescribeKey asks KMS for what it says of a CMK of a key that the caller may do
// something with: of the one that is named, or the current one of the region.
func (b *Broker) DescribeKey(ctx context.Context, call Call, of Reference) (*kmsapi.KeyMetadata, error) {
	ctx = withApplication(ctx, call)
	event := audit.Event{Action: audit.KeyDescribe, Key: of.Key, KeyID: of.KeyID, Application: true}
	seen, err := func() (*kmsapi.KeyMetadata, error) {
		if err := b.Audit.Ready(); err != nil {
			return nil, unrecorded(err)
		}
		if len(b.policy.Load().Permissions(call.Caller, of.Key)) == 0 {
			return nil, denied(authz.Request{Caller: call.Caller, Operation: "do anything", Key: of.Key}, authz.Decision{})
		}
		cmk, kms, err := b.locate(of.Key, of.Region)
		if err != nil {
			return nil, err
		}
		if of.KeyID != "" && of.KeyID != cmk.KeyID {
			key, err := b.Keyring.Key(of.Key)
			if err != nil {
				return nil, err
			}
			if older, ok := key.CMK(of.KeyID); ok {
				cmk = older
			}
		}
		event.KeyID = cmk.KeyID
		answer, err := kms.DescribeKey(ctx, cmk.KeyID)
		if err != nil {
			return nil, err
		}
		event.RequestID = answer.RequestID
		return answer, sameCMK(answer.KeyID, cmk)
	}()
	if err := b.finish(ctx, event, err); err != nil {
		return nil, err
	}
	return seen, nil
}
