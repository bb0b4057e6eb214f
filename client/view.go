package client

import (
	"context"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

// Identity is who the caller is in the eyes of the daemon: what a grant would have
// to name.
type Identity struct {
	UID         uint32
	User        string // its name in /etc/passwd, "" if it has none there
	GID         uint32
	Groups      []uint32 // supplementary
	PID         int
	Unit        string // the systemd system unit, "" if there is none or it is not known
	UnitUnknown string // why it is not known; then no grant to a unit matches
}

// WhoAmI asks the daemon who the caller is.
func (c *Client) WhoAmI(ctx context.Context) (*Identity, error) {
	answer, err := call(ctx, c, c.crypto.WhoAmI, &v1.WhoAmIRequest{})
	if err != nil {
		return nil, err
	}
	return &Identity{
		UID: answer.GetUid(), User: answer.GetUser(), GID: answer.GetGid(), Groups: answer.GetGroups(), PID: int(answer.GetPid()),
		Unit: answer.GetUnit(), UnitUnknown: answer.GetUnitUnknown(),
	}, nil
}

// Key is a key that the caller may do something with.
type Key struct {
	Name       string
	Region     string   // home
	Regions    []string // where it has a CMK
	Operations []Operation
}

// Operation is what the caller may do with a key.
type Operation struct {
	Name string // as in a grant: "encrypt"
	// RequiredContext is what the encryption context must have.
	RequiredContext map[string]string
}

// ListKeys lists the keys that the caller may do something with, by name.
func (c *Client) ListKeys(ctx context.Context) ([]Key, error) {
	answer, err := call(ctx, c, c.crypto.ListKeys, &v1.ListOwnKeysRequest{})
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, k := range answer.GetKeys() {
		key := Key{Name: k.GetName(), Region: k.GetRegion(), Regions: k.GetRegions()}
		for _, o := range k.GetOperations() {
			key.Operations = append(key.Operations, Operation{Name: o.GetName(), RequiredContext: o.GetRequiredContext()})
		}
		keys = append(keys, key)
	}
	return keys, nil
}
