package kmsapi

import "context"

// split is a KMS whose cryptographic operations go elsewhere.
type split struct {
	KMS  // of everything else
	data KMS
}

// NewSplit makes one KMS of two: Encrypt, Decrypt and the data keys go to data,
// everything else, imports included, to management. A KMS instance needs it,
// whose dedicated gateway ([InstanceEndpoint]) carries the data, and the region's
// shared gateway the management.
func NewSplit(data, management KMS) KMS {
	return &split{KMS: management, data: data}
}

// Encrypt implements KMS.
func (s *split) Encrypt(ctx context.Context, req EncryptRequest) (*EncryptResponse, error) {
	return s.data.Encrypt(ctx, req)
}

// Decrypt implements KMS.
func (s *split) Decrypt(ctx context.Context, req DecryptRequest) (*DecryptResponse, error) {
	return s.data.Decrypt(ctx, req)
}

// GenerateDataKey implements KMS.
func (s *split) GenerateDataKey(ctx context.Context, req DataKeyRequest) (*DataKeyResponse, error) {
	return s.data.GenerateDataKey(ctx, req)
}

// GenerateDataKeyWithoutPlaintext implements KMS.
func (s *split) GenerateDataKeyWithoutPlaintext(ctx context.Context, req DataKeyRequest) (*DataKeyResponse, error) {
	return s.data.GenerateDataKeyWithoutPlaintext(ctx, req)
}
