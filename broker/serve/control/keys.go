package control

import (
	"context"

	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
)

type importStream = grpc.ServerStreamingServer[v1.ImportEvent]

// ImportKey implements v1.ControlServer.
func (s *Server) ImportKey(req *v1.ImportKeyRequest, stream importStream) error {
	return s.importKey(keyring.NewKey, req, stream)
}

// RotateKey implements v1.ControlServer.
func (s *Server) RotateKey(req *v1.ImportKeyRequest, stream importStream) error {
	return s.importKey(keyring.Rotation, req, stream)
}

// AddRegion implements v1.ControlServer.
func (s *Server) AddRegion(req *v1.ImportKeyRequest, stream importStream) error {
	return s.importKey(keyring.Extension, req, stream)
}

func (s *Server) importKey(kind keyring.ImportKind, req *v1.ImportKeyRequest, stream importStream) error {
	from, err := call(stream.Context())
	if err != nil {
		return err
	}
	key, err := s.core.ImportKey(stream.Context(), from, importRequest(kind, req), reporter(stream))
	if err != nil {
		return err
	}
	return stream.Send(&v1.ImportEvent{Event: &v1.ImportEvent_Key{Key: keyMessage(key)}})
}

func importRequest(kind keyring.ImportKind, req *v1.ImportKeyRequest) importer.Request {
	return importer.Request{
		Kind: kind, Name: req.GetName(), Backend: req.GetBackend(), Regions: req.GetRegions(), Alias: req.Alias,
		Description: req.Description, WrappingAlgorithm: req.WrappingAlgorithm, Expires: req.Expires, Renew: req.Renew,
	}
}

// PlanKey implements v1.ControlServer.
func (s *Server) PlanKey(ctx context.Context, req *v1.PlanKeyRequest) (*v1.PlanKeyResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	kind := keyring.NewKey
	switch req.GetKind() {
	case v1.PlanKeyRequest_KIND_ROTATE:
		kind = keyring.Rotation
	case v1.PlanKeyRequest_KIND_ADD_REGION:
		kind = keyring.Extension
	default:
	}
	planned, err := s.core.PlanImport(ctx, from, importRequest(kind, req.GetRequest()))
	if err != nil {
		return nil, err
	}
	answer := &v1.PlanKeyResponse{}
	for _, p := range planned {
		if p.State != importer.Started {
			answer.Steps = append(answer.Steps, stepMessage(p))
		}
	}
	return answer, nil
}

// ReimportKey implements v1.ControlServer.
func (s *Server) ReimportKey(req *v1.ReimportKeyRequest, stream importStream) error {
	from, err := call(stream.Context())
	if err != nil {
		return err
	}
	key, err := s.core.ReimportKey(stream.Context(), from, importer.Reimport{
		Name: req.GetName(), KeyID: req.GetKeyId(), Expires: req.Expires, Renew: req.Renew,
	}, reporter(stream))
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
func (s *Server) VerifyKey(ctx context.Context, req *v1.VerifyKeyRequest) (*v1.VerifyKeyResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	key, checks, err := s.core.VerifyKey(ctx, from, req.GetName(), req.GetMaterial())
	if err != nil {
		return nil, err
	}
	answer := &v1.VerifyKeyResponse{Key: keyMessage(key)}
	for _, c := range checks {
		answer.Checks = append(answer.Checks, &v1.VerifyKeyResponse_Check{Name: c.Name, Region: c.Region, Passed: c.Passed, Detail: c.Detail})
	}
	return answer, nil
}

// AdoptKey implements v1.ControlServer.
func (s *Server) AdoptKey(ctx context.Context, req *v1.AdoptKeyRequest) (*v1.Key, error) {
	return s.key(ctx, func(from broker.Call) (*keyring.Key, error) {
		adoption := broker.Adoption{Name: req.GetName(), CMK: req.GetCmk(), Region: req.GetRegion(), Backend: req.GetBackend()}
		if id := req.GetHsmKeyId(); id != "" {
			parsed, err := hsm.ParseKeyID(id)
			if err != nil {
				return nil, err
			}
			adoption.HSMKeyID = parsed
		}
		return s.core.AdoptKey(ctx, from, adoption)
	})
}

// ForgetKey implements v1.ControlServer.
func (s *Server) ForgetKey(ctx context.Context, req *v1.KeyRequest) (*v1.Key, error) {
	return s.key(ctx, func(from broker.Call) (*keyring.Key, error) { return s.core.ForgetKey(ctx, from, req.GetName()) })
}

// SealKey implements v1.ControlServer.
func (s *Server) SealKey(ctx context.Context, req *v1.KeyRequest) (*v1.Key, error) {
	return s.key(ctx, func(from broker.Call) (*keyring.Key, error) { return s.core.SealKey(ctx, from, req.GetName()) })
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
	return s.key(ctx, func(broker.Call) (*keyring.Key, error) { return s.core.ShowKey(ctx, req.GetName()) })
}

// KeyDetails implements v1.ControlServer.
func (s *Server) KeyDetails(ctx context.Context, req *v1.Target) (*v1.KeyDetailsResponse, error) {
	details, err := s.core.KeyDetails(ctx, target(req))
	if err != nil {
		return nil, err
	}
	answer := &v1.KeyDetailsResponse{}
	for _, d := range details {
		answer.Details = append(answer.Details, detailMessage(d))
	}
	return answer, nil
}

// KeyEvidence implements v1.ControlServer.
func (s *Server) KeyEvidence(ctx context.Context, req *v1.KeyRequest) (*v1.KeyEvidenceResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	file, fingerprint, err := s.core.KeyEvidence(ctx, from, req.GetName())
	if err != nil {
		return nil, err
	}
	return &v1.KeyEvidenceResponse{File: file, Fingerprint: fingerprint}, nil
}

// key answers with the key that f returns.
func (s *Server) key(ctx context.Context, f func(broker.Call) (*keyring.Key, error)) (*v1.Key, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	key, err := f(from)
	if err != nil {
		return nil, err
	}
	return keyMessage(key), nil
}
