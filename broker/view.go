package broker

import (
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// OwnKey is a key as a caller sees it that may do something with it.
type OwnKey struct {
	Name        string
	Region      string   // home
	Regions     []string // where it has a CMK
	Alias       string   // with its prefix, "" if it has none
	Current     []*keyring.CMK
	Permissions []authz.Permission
}

// OwnKeys lists the keys that a caller may do something with, by name. It asks
// nobody outside and decides nothing, so it is not in the audit trail.
func (b *Broker) OwnKeys(call Call) []OwnKey {
	policy := b.policy.Load()
	if !policy.Names(call.Caller) {
		return nil // 10,000 keys are not looked through for those who have none
	}
	var own []OwnKey
	for _, key := range b.Keyring.Keys() {
		if permissions := policy.Permissions(call.Caller, key.Name); len(permissions) > 0 {
			own = append(own, OwnKey{
				Name: key.Name, Region: key.Region, Regions: key.Regions(), Alias: key.Alias, Current: key.CurrentCMKs(), Permissions: permissions,
			})
		}
	}
	return own
}

// Names reports whether some grant allows the caller something.
func (b *Broker) Names(caller authz.Caller) bool { return b.policy.Load().Names(caller) }

// Serving reports whether applications are answered as far as that is in the hand
// of the daemon: while the audit trail cannot be written they are not.
func (b *Broker) Serving() bool { return b.Audit.Unrecorded || b.Audit.Err() == nil }
