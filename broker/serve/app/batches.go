package app

import (
	"context"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

// EncryptBatch implements v1.CryptoServer.
func (s *Server) EncryptBatch(ctx context.Context, req *v1.EncryptBatchRequest) (*v1.EncryptBatchResponse, error) {
	items, err := batch(ctx, s, "Encrypt", req.GetItems(), s.encrypt, encryptDone, encryptFailed)
	return &v1.EncryptBatchResponse{Items: items}, err
}

func encryptDone(answer *v1.EncryptResponse) *v1.EncryptBatchResponse_Item {
	return &v1.EncryptBatchResponse_Item{Result: &v1.EncryptBatchResponse_Item_Done{Done: answer}}
}

func encryptFailed(f *v1.Failure) *v1.EncryptBatchResponse_Item {
	return &v1.EncryptBatchResponse_Item{Result: &v1.EncryptBatchResponse_Item_Failed{Failed: f}}
}

// DecryptBatch implements v1.CryptoServer.
func (s *Server) DecryptBatch(ctx context.Context, req *v1.DecryptBatchRequest) (*v1.DecryptBatchResponse, error) {
	items, err := batch(ctx, s, "Decrypt", req.GetItems(), s.decrypt, decryptDone, decryptFailed)
	return &v1.DecryptBatchResponse{Items: items}, err
}

func decryptDone(answer *v1.DecryptResponse) *v1.DecryptBatchResponse_Item {
	return &v1.DecryptBatchResponse_Item{Result: &v1.DecryptBatchResponse_Item_Done{Done: answer}}
}

func decryptFailed(f *v1.Failure) *v1.DecryptBatchResponse_Item {
	return &v1.DecryptBatchResponse_Item{Result: &v1.DecryptBatchResponse_Item_Failed{Failed: f}}
}

// ReEncryptBatch implements v1.CryptoServer.
func (s *Server) ReEncryptBatch(ctx context.Context, req *v1.ReEncryptBatchRequest) (*v1.ReEncryptBatchResponse, error) {
	items, err := batch(ctx, s, "ReEncrypt", req.GetItems(), s.reEncrypt, reEncryptDone, reEncryptFailed)
	return &v1.ReEncryptBatchResponse{Items: items}, err
}

func reEncryptDone(answer *v1.ReEncryptResponse) *v1.ReEncryptBatchResponse_Item {
	return &v1.ReEncryptBatchResponse_Item{Result: &v1.ReEncryptBatchResponse_Item_Done{Done: answer}}
}

func reEncryptFailed(f *v1.Failure) *v1.ReEncryptBatchResponse_Item {
	return &v1.ReEncryptBatchResponse_Item{Result: &v1.ReEncryptBatchResponse_Item_Failed{Failed: f}}
}

// GenerateDataKeyBatch implements v1.CryptoServer.
func (s *Server) GenerateDataKeyBatch(ctx context.Context, req *v1.GenerateDataKeyBatchRequest) (*v1.GenerateDataKeyBatchResponse, error) {
	items, err := batch(ctx, s, "GenerateDataKey", req.GetItems(), s.generate(true), dataKeyDone, dataKeyFailed)
	return &v1.GenerateDataKeyBatchResponse{Items: items}, err
}

// GenerateDataKeyWithoutPlaintextBatch implements v1.CryptoServer.
func (s *Server) GenerateDataKeyWithoutPlaintextBatch(ctx context.Context, req *v1.GenerateDataKeyBatchRequest) (*v1.GenerateDataKeyBatchResponse, error) {
	items, err := batch(ctx, s, "GenerateDataKeyWithoutPlaintext", req.GetItems(), s.generate(false), dataKeyDone, dataKeyFailed)
	return &v1.GenerateDataKeyBatchResponse{Items: items}, err
}

func dataKeyDone(answer *v1.GenerateDataKeyResponse) *v1.GenerateDataKeyBatchResponse_Item {
	return &v1.GenerateDataKeyBatchResponse_Item{Result: &v1.GenerateDataKeyBatchResponse_Item_Done{Done: answer}}
}

func dataKeyFailed(f *v1.Failure) *v1.GenerateDataKeyBatchResponse_Item {
	return &v1.GenerateDataKeyBatchResponse_Item{Result: &v1.GenerateDataKeyBatchResponse_Item_Failed{Failed: f}}
}
