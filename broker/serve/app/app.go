// Package app is the application door: gRPC kmsbroker.v1.Crypto on kms.sock.
package app

import (
	"context"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/serve"
)

// Door names this door in the audit trail.
const Door = "application"

// Server implements kmsbroker.v1.Crypto on the core.
type Server struct {
	v1.UnimplementedCryptoServer
	core  *broker.Broker
	items *serve.Calls
}

// New makes the door to a core. The items of batches are treated as calls are.
func New(core *broker.Broker, items *serve.Calls) *Server { return &Server{core: core, items: items} }

func call(ctx context.Context) (broker.Call, error) {
	caller, err := serve.CallerOf(ctx)
	return broker.Call{Caller: caller, Door: Door}, err
}

// Encrypt implements v1.CryptoServer.
func (s *Server) Encrypt(ctx context.Context, req *v1.EncryptRequest) (*v1.EncryptResponse, error) {
	return one(ctx, req, s.encrypt)
}

// Decrypt implements v1.CryptoServer.
func (s *Server) Decrypt(ctx context.Context, req *v1.DecryptRequest) (*v1.DecryptResponse, error) {
	return one(ctx, req, s.decrypt)
}

// ReEncrypt implements v1.CryptoServer.
func (s *Server) ReEncrypt(ctx context.Context, req *v1.ReEncryptRequest) (*v1.ReEncryptResponse, error) {
	return one(ctx, req, s.reEncrypt)
}

// GenerateDataKey implements v1.CryptoServer.
func (s *Server) GenerateDataKey(ctx context.Context, req *v1.GenerateDataKeyRequest) (*v1.GenerateDataKeyResponse, error) {
	return one(ctx, req, s.generate(true))
}

// GenerateDataKeyWithoutPlaintext implements v1.CryptoServer.
func (s *Server) GenerateDataKeyWithoutPlaintext(ctx context.Context, req *v1.GenerateDataKeyRequest) (*v1.GenerateDataKeyResponse, error) {
	return one(ctx, req, s.generate(false))
}

// operation is what single calls and the items of batches have in common.
type operation[Req, Resp any] func(context.Context, broker.Call, Req) (Resp, error)

func one[Req, Resp any](ctx context.Context, req Req, do operation[Req, Resp]) (Resp, error) {
	from, err := call(ctx)
	if err != nil {
		var none Resp
		return none, err
	}
	return do(ctx, from, req)
}

func (s *Server) encrypt(ctx context.Context, from broker.Call, req *v1.EncryptRequest) (*v1.EncryptResponse, error) {
	defer clear(req.GetPlaintext())
	answer, err := s.core.Encrypt(ctx, from, req.GetKey(), req.GetRegion(), req.GetPlaintext(), req.GetEncryptionContext())
	if err != nil {
		return nil, err
	}
	return &v1.EncryptResponse{
		Key: answer.Key, KeyId: answer.KeyID, KeyVersionId: answer.KeyVersionID,
		CiphertextBlob: answer.CiphertextBlob, RequestId: answer.RequestID,
	}, nil
}

func (s *Server) decrypt(ctx context.Context, from broker.Call, req *v1.DecryptRequest) (*v1.DecryptResponse, error) {
	answer, err := s.core.Decrypt(ctx, from, req.GetKey(), req.GetRegion(), req.GetCiphertextBlob(), req.GetEncryptionContext())
	if err != nil {
		return nil, err
	}
	return &v1.DecryptResponse{
		Key: answer.Key, KeyId: answer.KeyID, KeyVersionId: answer.KeyVersionID,
		Plaintext: answer.Plaintext, RequestId: answer.RequestID,
	}, nil
}

func (s *Server) reEncrypt(ctx context.Context, from broker.Call, req *v1.ReEncryptRequest) (*v1.ReEncryptResponse, error) {
	answer, err := s.core.ReEncrypt(ctx, from, broker.ReEncryption{
		CiphertextBlob: req.GetCiphertextBlob(), SourceContext: req.GetSourceContext(), SourceRegion: req.GetSourceRegion(),
		Key: req.GetKey(), Context: req.GetContext(), Region: req.GetRegion(),
	})
	if err != nil {
		return nil, err
	}
	return &v1.ReEncryptResponse{
		Key: answer.Key, KeyId: answer.KeyID, KeyVersionId: answer.KeyVersionID, CiphertextBlob: answer.CiphertextBlob,
		RequestId: answer.RequestID, SourceKey: answer.SourceKey, SourceKeyId: answer.SourceKeyID, Unchanged: answer.Unchanged,
	}, nil
}

func (s *Server) generate(withPlaintext bool) operation[*v1.GenerateDataKeyRequest, *v1.GenerateDataKeyResponse] {
	return func(ctx context.Context, from broker.Call, req *v1.GenerateDataKeyRequest) (*v1.GenerateDataKeyResponse, error) {
		answer, err := s.core.GenerateDataKey(ctx, from, req.GetKey(), req.GetRegion(), int(req.GetNumberOfBytes()), req.GetEncryptionContext(), withPlaintext)
		if err != nil {
			return nil, err
		}
		return &v1.GenerateDataKeyResponse{
			Key: answer.Key, KeyId: answer.KeyID, KeyVersionId: answer.KeyVersionID,
			Plaintext: answer.Plaintext, CiphertextBlob: answer.CiphertextBlob, RequestId: answer.RequestID,
		}, nil
	}
}
