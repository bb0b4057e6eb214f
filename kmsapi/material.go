package kmsapi

import (
	"context"
	"encoding/base64"
	"errors"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
)

// GetParametersForImport implements KMS.
func (c *Client) GetParametersForImport(ctx context.Context, req ImportParametersRequest) (*ImportParameters, error) {
	r := kms.CreateGetParametersForImportRequest()
	r.KeyId, r.WrappingAlgorithm, r.WrappingKeySpec = req.KeyID, req.WrappingAlgorithm, req.WrappingKeySpec
	resp, err := send(ctx, c, (*kms.Client).GetParametersForImport, r)
	if err != nil {
		return nil, err
	}
	f := fieldsOf(r, resp.RequestId)
	params := &ImportParameters{
		KeyID:       f.required("KeyId", resp.KeyId),
		PublicKey:   f.wrappingKey("PublicKey", resp.PublicKey),
		ImportToken: f.base64("ImportToken", resp.ImportToken),
		ExpiresAt:   f.time("TokenExpireTime", f.required("TokenExpireTime", resp.TokenExpireTime)),
		RequestID:   resp.RequestId,
	}
	if err := f.err(); err != nil {
		clear(params.ImportToken)
		return nil, err
	}
	return params, nil
}

// ImportKeyMaterial implements KMS.
func (c *Client) ImportKeyMaterial(ctx context.Context, req ImportKeyMaterialRequest) (Ack, error) {
	r := kms.CreateImportKeyMaterialRequest()
	r.KeyId = req.KeyID
	r.EncryptedKeyMaterial = base64.StdEncoding.EncodeToString(req.EncryptedKeyMaterial)
	r.ImportToken = base64.StdEncoding.EncodeToString(req.ImportToken)
	// Sent even when it is 0, never: the documentation calls it optional, the
	// API's metadata required.
	var expiry int64
	if !req.ExpiresAt.IsZero() {
		if expiry = req.ExpiresAt.Unix(); expiry <= 0 {
			return Ack{}, &Error{Operation: r.GetActionName(), Stage: StageLocal, Cause: errors.New("an expiry before 1970 would be taken for never")}
		}
	}
	r.KeyMaterialExpireUnix = requests.NewInteger64(expiry)
	resp, err := send(ctx, c, (*kms.Client).ImportKeyMaterial, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// DeleteKeyMaterial implements KMS.
func (c *Client) DeleteKeyMaterial(ctx context.Context, keyID string) (Ack, error) {
	r := kms.CreateDeleteKeyMaterialRequest()
	r.KeyId = keyID
	resp, err := send(ctx, c, (*kms.Client).DeleteKeyMaterial, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}
