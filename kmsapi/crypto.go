package kmsapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
)

// Encrypt implements KMS.
func (c *Client) Encrypt(ctx context.Context, req EncryptRequest) (*EncryptResponse, error) {
	r := kms.CreateEncryptRequest()
	r.KeyId = req.KeyID
	r.Plaintext = base64.StdEncoding.EncodeToString(req.Plaintext)
	var err error
	if r.EncryptionContext, err = contextJSON(req.Context); err != nil {
		return nil, &Error{Operation: r.GetActionName(), Stage: StageLocal, Cause: err}
	}
	resp, err := send(ctx, c, (*kms.Client).Encrypt, r)
	if err != nil {
		return nil, err
	}
	f := fieldsOf(r, resp.RequestId)
	out := &EncryptResponse{
		KeyID:          f.required("KeyId", resp.KeyId),
		KeyVersionID:   resp.KeyVersionId,
		CiphertextBlob: f.required("CiphertextBlob", resp.CiphertextBlob),
		RequestID:      resp.RequestId,
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// Decrypt implements KMS.
func (c *Client) Decrypt(ctx context.Context, req DecryptRequest) (*DecryptResponse, error) {
	r := kms.CreateDecryptRequest()
	r.CiphertextBlob = req.CiphertextBlob
	var err error
	if r.EncryptionContext, err = contextJSON(req.Context); err != nil {
		return nil, &Error{Operation: r.GetActionName(), Stage: StageLocal, Cause: err}
	}
	resp, err := send(ctx, c, (*kms.Client).Decrypt, r)
	if err != nil {
		return nil, err
	}
	f := fieldsOf(r, resp.RequestId)
	out := &DecryptResponse{
		KeyID:        f.required("KeyId", resp.KeyId),
		KeyVersionID: resp.KeyVersionId,
		Plaintext:    f.base64("Plaintext", resp.Plaintext),
		RequestID:    resp.RequestId,
	}
	if err := f.err(); err != nil {
		clear(out.Plaintext)
		return nil, err
	}
	return out, nil
}

// GenerateDataKey implements KMS.
func (c *Client) GenerateDataKey(ctx context.Context, req DataKeyRequest) (*DataKeyResponse, error) {
	r := kms.CreateGenerateDataKeyRequest()
	r.KeyId = req.KeyID
	r.NumberOfBytes = optional(req.Bytes)
	var err error
	if r.EncryptionContext, err = contextJSON(req.Context); err != nil {
		return nil, &Error{Operation: r.GetActionName(), Stage: StageLocal, Cause: err}
	}
	resp, err := send(ctx, c, (*kms.Client).GenerateDataKey, r)
	if err != nil {
		return nil, err
	}
	f := fieldsOf(r, resp.RequestId)
	out := &DataKeyResponse{
		KeyID:          f.required("KeyId", resp.KeyId),
		KeyVersionID:   resp.KeyVersionId,
		Plaintext:      f.base64("Plaintext", resp.Plaintext),
		CiphertextBlob: f.required("CiphertextBlob", resp.CiphertextBlob),
		RequestID:      resp.RequestId,
	}
	if len(out.Plaintext) != cmp.Or(req.Bytes, defaultDataKey) {
		f.breaks("Plaintext", "does not have the length that was asked for")
	}
	if err := f.err(); err != nil {
		clear(out.Plaintext)
		return nil, err
	}
	return out, nil
}

// defaultDataKey is what KMS makes when it is told neither a size nor a spec.
const defaultDataKey = 32

// GenerateDataKeyWithoutPlaintext implements KMS.
func (c *Client) GenerateDataKeyWithoutPlaintext(ctx context.Context, req DataKeyRequest) (*DataKeyResponse, error) {
	r := kms.CreateGenerateDataKeyWithoutPlaintextRequest()
	r.KeyId = req.KeyID
	r.NumberOfBytes = optional(req.Bytes)
	var err error
	if r.EncryptionContext, err = contextJSON(req.Context); err != nil {
		return nil, &Error{Operation: r.GetActionName(), Stage: StageLocal, Cause: err}
	}
	resp, err := send(ctx, c, (*kms.Client).GenerateDataKeyWithoutPlaintext, r)
	if err != nil {
		return nil, err
	}
	f := fieldsOf(r, resp.RequestId)
	out := &DataKeyResponse{
		KeyID:          f.required("KeyId", resp.KeyId),
		KeyVersionID:   resp.KeyVersionId,
		CiphertextBlob: f.required("CiphertextBlob", resp.CiphertextBlob),
		RequestID:      resp.RequestId,
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// contextJSON renders an encryption context as KMS takes it, "" for none.
// Escaping is kept to a minimum because KMS limits the length.
func contextJSON(pairs map[string]string) (string, error) {
	if len(pairs) == 0 {
		return "", nil
	}
	for k, v := range pairs {
		// JSON would replace the bytes, and two contexts could become one.
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return "", errors.New("the encryption context is not valid UTF-8")
		}
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(pairs); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}
