package broker

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/audit"
)

// Snapshot is a copy of the key registry, and how far the audit trail was then.
type Snapshot struct {
	Path       string
	InstanceID string
	Head       audit.Head
}

// Snapshot writes a copy of the key registry beside it, for a backup.
func (b *Broker) Snapshot(ctx context.Context, call Call) (*Snapshot, error) {
	path, err := b.Keyring.Snapshot()
	if err := b.finish(withCall(ctx, call), audit.Event{Action: audit.Backup}, err); err != nil {
		return nil, err
	}
	// With its own record, which is on the disk.
	return &Snapshot{Path: path, InstanceID: b.Keyring.InstanceID(), Head: b.Audit.Head()}, nil
}
