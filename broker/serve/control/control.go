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
	"github.com/kmsbroker/kmsbroker/broker/importer"
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

// ImportKey implements v1.ControlServer.
func (s *Server) ImportKey(req *v1.ImportKeyRequest, stream grpc.ServerStreamingServer[v1.ImportEvent]) error {
	from, err := call(stream.Context())
	if err != nil {
		return err
	}
	key, err := s.core.ImportKey(stream.Context(), from, importer.Request{
		Name: req.GetName(), Backend: req.GetBackend(), Region: req.GetRegion(), Alias: req.Alias,
		Description: req.Description, WrappingAlgorithm: req.WrappingAlgorithm, Expires: req.Expires,
	}, reporter(stream))
	if err != nil {
		return err
	}
	return stream.Send(&v1.ImportEvent{Event: &v1.ImportEvent_Key{Key: keyMessage(key)}})
}

// ReimportKey implements v1.ControlServer.
func (s *Server) ReimportKey(req *v1.ReimportKeyRequest, stream grpc.ServerStreamingServer[v1.ImportEvent]) error {
	from, err := call(stream.Context())
	if err != nil {
		return err
	}
	key, err := s.core.ReimportKey(stream.Context(), from, req.GetName(), req.Expires, reporter(stream))
	if err != nil {
		return err
	}
	return stream.Send(&v1.ImportEvent{Event: &v1.ImportEvent_Key{Key: keyMessage(key)}})
}

// AbandonImport implements v1.ControlServer.
func (s *Server) AbandonImport(ctx context.Context, req *v1.KeyRequest) (*v1.UnfinishedImport, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	imp, err := s.core.AbandonImport(ctx, from, req.GetName())
	if err != nil {
		return nil, err
	}
	return importMessage(imp), nil
}

// VerifyKey implements v1.ControlServer.
func (s *Server) VerifyKey(ctx context.Context, req *v1.KeyRequest) (*v1.VerifyKeyResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	key, checks, err := s.core.VerifyKey(ctx, from, req.GetName())
	if err != nil {
		return nil, err
	}
	answer := &v1.VerifyKeyResponse{Key: keyMessage(key)}
	for _, c := range checks {
		answer.Checks = append(answer.Checks, &v1.VerifyKeyResponse_Check{Name: c.Name, Passed: c.Passed, Detail: c.Detail})
	}
	return answer, nil
}

// ListKeys implements v1.ControlServer.
func (s *Server) ListKeys(context.Context, *v1.ListKeysRequest) (*v1.ListKeysResponse, error) {
	keys, imports := s.core.Keys()
	answer := &v1.ListKeysResponse{Unfinished: importMessages(imports)}
	for _, key := range keys {
		answer.Keys = append(answer.Keys, keyMessage(key))
	}
	return answer, nil
}

// ShowKey implements v1.ControlServer.
func (s *Server) ShowKey(ctx context.Context, req *v1.KeyRequest) (*v1.Key, error) {
	key, err := s.core.ShowKey(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return keyMessage(key), nil
}

// EnableKey implements v1.ControlServer.
func (s *Server) EnableKey(ctx context.Context, req *v1.KeyRequest) (*v1.Key, error) {
	return s.change(ctx, broker.EnableKey, req.GetName(), 0)
}

// DisableKey implements v1.ControlServer.
func (s *Server) DisableKey(ctx context.Context, req *v1.KeyRequest) (*v1.Key, error) {
	return s.change(ctx, broker.DisableKey, req.GetName(), 0)
}

// DeleteKeyMaterial implements v1.ControlServer.
func (s *Server) DeleteKeyMaterial(ctx context.Context, req *v1.KeyRequest) (*v1.Key, error) {
	return s.change(ctx, broker.DeleteKeyMaterial, req.GetName(), 0)
}

// ScheduleKeyDeletion implements v1.ControlServer.
func (s *Server) ScheduleKeyDeletion(ctx context.Context, req *v1.ScheduleKeyDeletionRequest) (*v1.Key, error) {
	return s.change(ctx, broker.ScheduleKeyDeletion, req.GetName(), int(req.GetDays()))
}

// CancelKeyDeletion implements v1.ControlServer.
func (s *Server) CancelKeyDeletion(ctx context.Context, req *v1.KeyRequest) (*v1.Key, error) {
	return s.change(ctx, broker.CancelKeyDeletion, req.GetName(), 0)
}

func (s *Server) change(ctx context.Context, action broker.KeyAction, name string, days int) (*v1.Key, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	key, err := s.core.ChangeKey(ctx, from, action, name, days)
	if err != nil {
		return nil, err
	}
	return keyMessage(key), nil
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
