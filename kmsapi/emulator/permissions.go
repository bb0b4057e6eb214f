package emulator

import (
	"net/http"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/ram"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// scope is on what an operation needs permission ("Use RAM to control access to
// KMS resources").
type scope int

const (
	onNothing scope = iota
	onKey           // the keys that its parameters name; find asks
	onKeys          // the container of all keys
	onAliases       // the container of all aliases
	onAccount       // everything
)

// permitted asks for permission on the container of an operation that names no
// key.
func (c *call) permitted() error {
	switch c.op.on {
	case onKeys:
		return c.permit("key", nil)
	case onAliases:
		return c.permit("alias", nil)
	case onAccount:
		return c.permit("*", nil)
	case onNothing, onKey:
	}
	return nil
}

// permit demands that the caller may do what the call does on a resource, which
// is k when that is not nil. One Deny is enough to refuse, and one Allow enough
// to permit: of RAM, or of the policy of the key ("Overview of key policies").
func (c *call) permit(resource string, k *key) error {
	arn := c.region.arn(resource)
	if c.who.Root() {
		return nil
	}
	q := policy.Request{
		Action: "kms:" + c.permission, Resource: arn,
		Principals: map[string][]string{"RAM": c.who.Names()}, Context: ram.RequestContext(c.request, c.now),
	}
	verdicts := []policy.Verdict{policy.Silent}
	if k != nil {
		for _, t := range k.Tags {
			q.Context["kms:tag/"+t.TagKey] = t.TagValue
		}
		verdicts = append(verdicts, k.policy.Evaluate(q))
	}
	if policy.Combine(append(verdicts, c.who.Evaluate(q))...) != policy.Allowed {
		return &wire.Error{
			Status: http.StatusForbidden, Code: "Forbidden.NoPermission",
			Message: "This operation for " + arn + " is forbidden by permission system.",
		}
	}
	return nil
}

func (c *call) permitKey(k *key) error { return c.permit("key/"+k.ID, k) }
