package control

import (
	"context"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/internal/cgroup"
)

// ReloadPolicy implements v1.ControlServer.
func (s *Server) ReloadPolicy(ctx context.Context, _ *v1.ReloadPolicyRequest) (*v1.ReloadPolicyResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	loaded, err := s.core.ReloadPolicy(ctx, from)
	if err != nil {
		return nil, err
	}
	return &v1.ReloadPolicyResponse{Grants: uint32(loaded.Policy.Len()), Pkcs11Grants: uint32(loaded.Policy.LenObjects()), Restart: loaded.Restart}, nil
}

// ExplainPolicy implements v1.ControlServer.
func (s *Server) ExplainPolicy(_ context.Context, req *v1.ExplainPolicyRequest) (*v1.ExplainPolicyResponse, error) {
	caller, err := explainedCaller(req)
	if err != nil {
		return nil, err
	}
	explained, err := s.explain(caller, req)
	if err != nil {
		return nil, err
	}
	return explanationMessage(explained), nil
}

// explain asks about a key, or about an object.
func (s *Server) explain(caller authz.Caller, req *v1.ExplainPolicyRequest) (broker.Explanation, error) {
	object := req.GetObject()
	if object == nil {
		return s.core.ExplainPolicy(authz.Request{
			Caller: caller, Operation: authz.Operation(req.GetOperation()), Key: req.GetKey(), Context: req.GetEncryptionContext(),
		})
	}
	if req.GetKey() != "" || len(req.GetEncryptionContext()) > 0 {
		return broker.Explanation{}, failure.New(failure.Invalid, "OBJECT", "it is either about a key or about an object of a token")
	}
	return s.core.ExplainObject(authz.ObjectRequest{
		Caller: caller, Operation: authz.ObjectOperation(req.GetOperation()),
		Object: authz.Object{Token: object.GetToken(), Label: object.GetLabel(), ID: object.GetId()},
	})
}

// explainedCaller is the caller that is asked about.
func explainedCaller(req *v1.ExplainPolicyRequest) (authz.Caller, error) {
	if app := req.GetApp(); app != "" {
		if req.GetUser() != "" || len(req.GetGroups()) > 0 || req.GetUnit() != "" {
			return authz.Caller{}, failure.New(failure.Invalid, "CALLER", "an application has no user, groups or unit")
		}
		if err := authz.CheckApp(app); err != nil {
			return authz.Caller{}, failure.New(failure.Invalid, "CALLER", "the name of an application: %v", err)
		}
		return authz.Caller{App: app}, nil
	}
	caller, err := authz.LocalCaller(req.GetUser(), req.GetGroups())
	if err != nil {
		return authz.Caller{}, failure.New(failure.Invalid, "CALLER", "%v", err)
	}
	if caller.Unit.Name = req.GetUnit(); caller.Unit.Name != "" && !cgroup.ValidUnit(caller.Unit.Name) {
		return authz.Caller{}, failure.New(failure.Invalid, "CALLER", "%.100q is not the full name of a unit", caller.Unit.Name).
			WithHint("with its suffix: web.service")
	}
	return caller, nil
}

func explanationMessage(e broker.Explanation) *v1.ExplainPolicyResponse {
	number, at, rate := e.Decision.Grant()
	m := &v1.ExplainPolicyResponse{
		Allowed: e.Decision.Allowed, Reason: e.Why, Grant: uint32(number), At: at, Rate: rate.String(), Pin: e.Decision.PIN(),
		Caller: &v1.ExplainPolicyResponse_Caller{
			Uid: e.Caller.UID, Gid: e.Caller.GID, Groups: e.Caller.Groups, User: e.Caller.User,
			Unit: e.Caller.Unit.Name, UnitUnknown: e.Caller.Unit.Unknown, NoUnit: e.Caller.Unit.Why, App: e.Caller.App,
		},
	}
	for _, c := range e.Considered {
		m.Considered = append(m.Considered, &v1.ExplainPolicyResponse_Considered{
			Grant: uint32(c.Number), At: c.At, Effect: c.Effect.String(), Misses: c.Misses, Pin: c.PIN,
		})
	}
	return m
}
