// Package control is the administrator's door: gRPC kmsbroker.v1.Control on
// admin/control.sock. The directory and mode of the socket decide who can
// connect; whoever can is an administrator.
package control

import (
	"bytes"
	"context"
	"errors"

	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
)

// Door names this door in the audit trail.
const Door = "control"

// Server implements kmsbroker.v1.Control on the core.
type Server struct {
	v1.UnimplementedControlServer
	core *broker.Broker
}

// New makes the door to a core.
func New(core *broker.Broker) *Server { return &Server{core: core} }

func call(ctx context.Context) (broker.Call, error) {
	caller, err := serve.CallerOf(ctx)
	return broker.Call{Caller: caller, Door: Door}, err
}

// ListBackends implements v1.ControlServer.
func (s *Server) ListBackends(context.Context, *v1.ListBackendsRequest) (*v1.ListBackendsResponse, error) {
	return &v1.ListBackendsResponse{Backends: backendMessages(s.core.Status().Backends)}, nil
}

// ShowBackend implements v1.ControlServer.
func (s *Server) ShowBackend(_ context.Context, req *v1.ShowBackendRequest) (*v1.Backend, error) {
	status, err := s.core.Backend(req.GetName())
	if err != nil {
		return nil, err
	}
	return backendMessage(status), nil
}

// ListBackendKeys implements v1.ControlServer.
func (s *Server) ListBackendKeys(ctx context.Context, req *v1.ListBackendKeysRequest) (*v1.ListBackendKeysResponse, error) {
	keys, err := s.core.BackendKeys(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	answer := &v1.ListBackendKeysResponse{}
	for _, k := range keys {
		answer.Keys = append(answer.Keys, backendKeyMessage(k))
	}
	return answer, nil
}

// CheckBackend implements v1.ControlServer.
func (s *Server) CheckBackend(req *v1.CheckBackendRequest, stream grpc.ServerStreamingServer[v1.CheckEvent]) error {
	from, err := call(stream.Context())
	if err != nil {
		return err
	}
	asked, err := checkRequest(req)
	if err != nil {
		return err
	}
	asked.Progress = func(r conformance.Result) {
		// A stream that broke ends the context and with it the suite.
		_ = stream.Send(&v1.CheckEvent{Event: &v1.CheckEvent_Result{Result: r.String()}})
	}
	report, err := s.core.CheckBackend(stream.Context(), from, req.GetName(), asked)
	if err != nil {
		return err
	}
	var text, json bytes.Buffer
	if err := errors.Join(report.WriteText(&text), report.WriteJSON(&json)); err != nil {
		return err
	}
	return stream.Send(&v1.CheckEvent{Event: &v1.CheckEvent_Report_{Report: &v1.CheckEvent_Report{
		Json: json.Bytes(), Text: text.String(), Passed: report.Verdict == conformance.VerdictPassed,
	}}})
}

// InitToken implements v1.ControlServer.
func (s *Server) InitToken(ctx context.Context, req *v1.InitTokenRequest) (*v1.InitTokenResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(req.GetSoPin())
	defer clear(req.GetPin())
	serial, err := s.core.InitToken(ctx, from, req.GetName(), req.GetLabel(), req.GetSoPin(), req.GetPin())
	if err != nil {
		return nil, err
	}
	return &v1.InitTokenResponse{Serial: serial}, nil
}

// LoginBackend implements v1.ControlServer.
func (s *Server) LoginBackend(ctx context.Context, req *v1.LoginBackendRequest) (*v1.Backend, error) {
	defer clear(req.GetPin())
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	status, err := s.core.LoginBackend(ctx, from, req.GetName(), req.GetPin())
	if err != nil {
		return nil, err
	}
	return backendMessage(status), nil
}

// RetryLogin implements v1.ControlServer.
func (s *Server) RetryLogin(ctx context.Context, req *v1.RetryLoginRequest) (*v1.Backend, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	status, err := s.core.RetryLogin(ctx, from, req.GetName())
	if err != nil {
		return nil, err
	}
	return backendMessage(status), nil
}

// Status implements v1.ControlServer.
func (s *Server) Status(context.Context, *v1.StatusRequest) (*v1.StatusResponse, error) {
	return statusMessage(s.core.Status()), nil
}
