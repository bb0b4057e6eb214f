package app

import (
	"context"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
)

// Seal implements v1.CryptoServer.
func (s *Server) Seal(ctx context.Context, req *v1.SealRequest) (*v1.SealResponse, error) {
	defer clear(req.GetPlaintext())
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	message, err := s.core.Seal(ctx, from, broker.Sealing{
		Key: req.GetKey(), Context: req.GetEncryptionContext(), Regions: req.GetRegions(),
	}, req.GetPlaintext())
	if err != nil {
		return nil, err
	}
	return &v1.SealResponse{Message: message}, nil
}

// Open implements v1.CryptoServer.
func (s *Server) Open(ctx context.Context, req *v1.OpenRequest) (*v1.OpenResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	plaintext, key, err := s.core.Open(ctx, from, broker.Opening{
		Context: req.GetEncryptionContext(), Key: req.GetKey(), Region: req.GetRegion(),
	}, req.GetMessage())
	if err != nil {
		return nil, err
	}
	return &v1.OpenResponse{Key: key, Plaintext: plaintext}, nil
}

// CreateMessageKey implements v1.CryptoServer.
func (s *Server) CreateMessageKey(ctx context.Context, req *v1.CreateMessageKeyRequest) (*v1.CreateMessageKeyResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	message, err := s.core.SealingKey(ctx, from, broker.Sealing{
		Key: req.GetKey(), Context: req.GetEncryptionContext(), Regions: req.GetRegions(), Size: req.GetSize(),
	})
	if err != nil {
		return nil, err
	}
	return &v1.CreateMessageKeyResponse{Header: message.Header(), MessageKey: message.Key()}, nil
}

// GetMessageKey implements v1.CryptoServer.
func (s *Server) GetMessageKey(ctx context.Context, req *v1.GetMessageKeyRequest) (*v1.GetMessageKeyResponse, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	message, key, err := s.core.OpeningKey(ctx, from, broker.Opening{
		Context: req.GetEncryptionContext(), Key: req.GetKey(), Region: req.GetRegion(),
	}, req.GetHeader())
	if err != nil {
		return nil, err
	}
	return &v1.GetMessageKeyResponse{Key: key, MessageKey: message.Key()}, nil
}
