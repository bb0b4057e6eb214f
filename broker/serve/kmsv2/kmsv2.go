// Package kmsv2 is the door for kube-apiserver: gRPC v2.KeyManagementService, which
// Kubernetes calls KMS v2, on a socket for each provider.
package kmsv2

import (
	"context"

	v2 "k8s.io/kms/apis/v2"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/serve"
)

// Door names this door in the audit trail.
const Door = "kubernetes"

// What Kubernetes expects of a status.
const (
	version = "v2"
	healthy = "ok"
)

// Annotations, which Kubernetes keeps beside each object. Their names have to look
// like those of hosts.
const (
	annotationFormat = "format.kmsbroker"
	annotationHeader = "header.kmsbroker"
)

// Formats of what is encrypted. They live as long as the objects in etcd.
const (
	formatKMS      = "kms/1"
	formatEnvelope = "envelope/1"
)

// Server implements v2.KeyManagementService.
type Server struct {
	v2.UnimplementedKeyManagementServiceServer
	seeds *broker.Seeds
}

// New makes the door to the seeds of a provider.
func New(seeds *broker.Seeds) *Server { return &Server{seeds: seeds} }

func call(ctx context.Context) (broker.Call, error) {
	caller, err := serve.CallerOf(ctx)
	return broker.Call{Caller: caller, Door: Door}, err
}

// Status implements v2.KeyManagementServiceServer.
func (s *Server) Status(ctx context.Context, _ *v2.StatusRequest) (*v2.StatusResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	keyID, err := s.seeds.Status(ctx, from)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case keyID == "":
		return nil, err
	}
	return &v2.StatusResponse{Version: version, Healthz: healthz(err), KeyId: keyID}, nil
}

// healthz says what is wrong to those who look at the health of kube-apiserver.
func healthz(err error) string {
	if err == nil {
		return healthy
	}
	f := failure.From(err)
	text := f.Kind.String() + ": " + f.Message
	if f.Hint != "" {
		text += " (" + f.Hint + ")"
	}
	return text
}

// Encrypt implements v2.KeyManagementServiceServer.
func (s *Server) Encrypt(ctx context.Context, req *v2.EncryptRequest) (*v2.EncryptResponse, error) {
	defer clear(req.GetPlaintext())
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	seed, err := s.seeds.Encrypt(ctx, from, req.GetUid(), req.GetPlaintext())
	if err != nil {
		return nil, err
	}
	return &v2.EncryptResponse{Ciphertext: seed.Ciphertext, KeyId: seed.KeyID, Annotations: annotations(seed)}, nil
}

// Decrypt implements v2.KeyManagementServiceServer.
func (s *Server) Decrypt(ctx context.Context, req *v2.DecryptRequest) (*v2.DecryptResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	seed, err := seedOf(req)
	if err != nil {
		return nil, err
	}
	plaintext, err := s.seeds.Decrypt(ctx, from, req.GetUid(), *seed)
	if err != nil {
		return nil, err
	}
	return &v2.DecryptResponse{Plaintext: plaintext}, nil
}

func annotations(seed *broker.Seed) map[string][]byte {
	if seed.Header == nil {
		return map[string][]byte{annotationFormat: []byte(formatKMS)}
	}
	return map[string][]byte{annotationFormat: []byte(formatEnvelope), annotationHeader: seed.Header}
}

// fits is whether Kubernetes keeps so many bytes of a KeyID or a ciphertext.
func fits(n int) bool { return n > 0 && n <= 1<<10 }

// seedOf accepts exactly what Encrypt answers.
func seedOf(req *v2.DecryptRequest) (*broker.Seed, error) {
	seed := &broker.Seed{Ciphertext: req.GetCiphertext(), KeyID: req.GetKeyId()}
	format, header := string(req.GetAnnotations()[annotationFormat]), req.GetAnnotations()[annotationHeader]
	known := 1
	switch {
	case format == formatKMS:
	case format == formatEnvelope && len(header) > 0:
		seed.Header = header
		known++
	default:
		known = -1
	}
	if len(req.GetAnnotations()) != known || !fits(len(seed.KeyID)) || !fits(len(seed.Ciphertext)) {
		return nil, failure.New(failure.Invalid, "SEED_FORMAT", "this is no encrypted seed of kmsbroker's, or one of a later version").
			WithHint("the object in etcd was encrypted by another KMS provider, or is damaged")
	}
	return seed, nil
}
