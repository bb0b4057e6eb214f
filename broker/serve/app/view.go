package app

import (
	"context"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

// WhoAmI implements v1.CryptoServer.
func (s *Server) WhoAmI(ctx context.Context, _ *v1.WhoAmIRequest) (*v1.WhoAmIResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	caller := from.Caller
	answer := &v1.WhoAmIResponse{
		Uid: caller.UID, User: caller.User, Gid: caller.GID, Groups: caller.Groups, Pid: caller.PID, Unit: caller.Unit.Name,
	}
	if caller.Unit.Unknown {
		answer.UnitUnknown = caller.Unit.Why
	}
	return answer, nil
}

// ListKeys implements v1.CryptoServer.
func (s *Server) ListKeys(ctx context.Context, _ *v1.ListOwnKeysRequest) (*v1.ListOwnKeysResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	answer := &v1.ListOwnKeysResponse{}
	for _, key := range s.core.OwnKeys(from) {
		k := &v1.ListOwnKeysResponse_Key{Name: key.Name, Region: key.Region, Regions: key.Regions}
		for _, p := range key.Permissions {
			k.Operations = append(k.Operations, &v1.ListOwnKeysResponse_Operation{Name: string(p.Operation), RequiredContext: p.Context})
		}
		answer.Keys = append(answer.Keys, k)
	}
	return answer, nil
}
