package control

import (
	"context"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// IssueAppKey implements v1.ControlServer.
func (s *Server) IssueAppKey(ctx context.Context, req *v1.IssueAppKeyRequest) (*v1.IssueAppKeyResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	key, secret, err := s.core.IssueAppKey(ctx, from, req.GetApp())
	if err != nil {
		return nil, err
	}
	return &v1.IssueAppKeyResponse{Key: appKeyMessage(key), AccessKeySecret: secret}, nil
}

// ListAppKeys implements v1.ControlServer.
func (s *Server) ListAppKeys(context.Context, *v1.ListAppKeysRequest) (*v1.ListAppKeysResponse, error) {
	return appKeysMessage(s.core.AppKeys()), nil
}

// RevokeAppKeys implements v1.ControlServer.
func (s *Server) RevokeAppKeys(ctx context.Context, req *v1.RevokeAppKeysRequest) (*v1.ListAppKeysResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	revoked, err := s.core.RevokeAppKeys(ctx, from, req.GetAppOrAccessKeyId())
	if err != nil {
		return nil, err
	}
	return appKeysMessage(revoked), nil
}

func appKeysMessage(keys []keyring.AppKey) *v1.ListAppKeysResponse {
	m := &v1.ListAppKeysResponse{}
	for _, key := range keys {
		m.Keys = append(m.Keys, appKeyMessage(key))
	}
	return m
}

func appKeyMessage(key keyring.AppKey) *v1.AppKey {
	return &v1.AppKey{App: key.App, AccessKeyId: key.ID, IssuedAt: timestamp(key.IssuedAt)}
}
