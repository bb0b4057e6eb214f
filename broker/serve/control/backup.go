package control

import (
	"context"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

// Snapshot implements v1.ControlServer.
func (s *Server) Snapshot(ctx context.Context, _ *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	made, err := s.core.Snapshot(ctx, from)
	if err != nil {
		return nil, err
	}
	return &v1.SnapshotResponse{Path: made.Path, InstanceId: made.InstanceID, AuditRecords: made.Head.Seq, AuditHead: made.Head.Hash}, nil
}
