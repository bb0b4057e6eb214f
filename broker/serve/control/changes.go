package control

import (
	"context"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

func target(t *v1.Target) broker.Target {
	return broker.Target{Key: t.GetName(), Region: t.GetRegion(), KeyID: t.GetKeyId()}
}

func (s *Server) change(ctx context.Context, change broker.Change, to *v1.Target) (*v1.Key, error) {
	return s.key(ctx, func(from broker.Call) (*keyring.Key, error) { return s.core.ChangeKey(ctx, from, change, target(to)) })
}

// EnableKey implements v1.ControlServer.
func (s *Server) EnableKey(ctx context.Context, req *v1.Target) (*v1.Key, error) {
	return s.change(ctx, broker.EnableKey(), req)
}

// DisableKey implements v1.ControlServer.
func (s *Server) DisableKey(ctx context.Context, req *v1.Target) (*v1.Key, error) {
	return s.change(ctx, broker.DisableKey(), req)
}

// DeleteKeyMaterial implements v1.ControlServer.
func (s *Server) DeleteKeyMaterial(ctx context.Context, req *v1.Target) (*v1.Key, error) {
	return s.change(ctx, broker.DeleteKeyMaterial(), req)
}

// ScheduleKeyDeletion implements v1.ControlServer.
func (s *Server) ScheduleKeyDeletion(ctx context.Context, req *v1.ScheduleKeyDeletionRequest) (*v1.Key, error) {
	return s.change(ctx, broker.ScheduleKeyDeletion(int(req.GetDays())), req.GetTarget())
}

// CancelKeyDeletion implements v1.ControlServer.
func (s *Server) CancelKeyDeletion(ctx context.Context, req *v1.Target) (*v1.Key, error) {
	return s.change(ctx, broker.CancelKeyDeletion(), req)
}

// ProtectKey implements v1.ControlServer.
func (s *Server) ProtectKey(ctx context.Context, req *v1.ProtectKeyRequest) (*v1.Key, error) {
	return s.change(ctx, broker.ProtectKey(req.GetEnabled(), req.GetReason()), req.GetTarget())
}

// TagKey implements v1.ControlServer.
func (s *Server) TagKey(ctx context.Context, req *v1.TagKeyRequest) (*v1.Key, error) {
	var set []kmsapi.Tag
	for name, value := range req.GetSet() {
		set = append(set, kmsapi.Tag{Key: name, Value: value})
	}
	return s.change(ctx, broker.TagKey(set, req.GetRemove()), req.GetTarget())
}

// SetDescription implements v1.ControlServer.
func (s *Server) SetDescription(ctx context.Context, req *v1.SetDescriptionRequest) (*v1.Key, error) {
	return s.key(ctx, func(from broker.Call) (*keyring.Key, error) {
		return s.core.SetDescription(ctx, from, target(req.GetTarget()), req.GetDescription())
	})
}
