package kmsapi

import (
	"context"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
)

// CreateKey implements KMS.
func (c *Client) CreateKey(ctx context.Context, req CreateKeyRequest) (*KeyMetadata, error) {
	r := kms.CreateCreateKeyRequest()
	r.Origin, r.KeySpec, r.KeyUsage = req.Origin, req.KeySpec, req.KeyUsage
	r.ProtectionLevel, r.Description, r.DKMSInstanceId = req.ProtectionLevel, req.Description, req.InstanceID
	if len(req.Tags) > 0 {
		var err error
		if r.Tags, err = tagsJSON(req.Tags); err != nil {
			return nil, &Error{Operation: r.GetActionName(), Stage: StageLocal, Cause: err}
		}
	}
	resp, err := send(ctx, c, (*kms.Client).CreateKey, r)
	if err != nil {
		return nil, err
	}
	return keyMetadata(r, resp.RequestId, resp.KeyMetadata)
}

// DescribeKey implements KMS.
func (c *Client) DescribeKey(ctx context.Context, keyID string) (*KeyMetadata, error) {
	r := kms.CreateDescribeKeyRequest()
	r.KeyId = keyID
	resp, err := send(ctx, c, (*kms.Client).DescribeKey, r)
	if err != nil {
		return nil, err
	}
	return keyMetadata(r, resp.RequestId, resp.KeyMetadata)
}

func keyMetadata(r requests.AcsRequest, requestID string, m kms.KeyMetadata) (*KeyMetadata, error) {
	f := fieldsOf(r, requestID)
	key := &KeyMetadata{
		KeyID:              f.required("KeyId", m.KeyId),
		ARN:                f.required("Arn", m.Arn),
		State:              f.state(m.KeyState),
		Usage:              m.KeyUsage,
		Spec:               m.KeySpec,
		Origin:             f.required("Origin", m.Origin),
		ProtectionLevel:    m.ProtectionLevel,
		Description:        m.Description,
		Creator:            m.Creator,
		CreatedAt:          f.time("CreationDate", f.required("CreationDate", m.CreationDate)),
		PrimaryKeyVersion:  m.PrimaryKeyVersion,
		DeleteAt:           f.time("DeleteDate", m.DeleteDate),
		MaterialExpireTime: f.time("MaterialExpireTime", m.MaterialExpireTime),
		DeletionProtection: m.DeletionProtection,
		InstanceID:         m.DKMSInstanceId,
		RequestID:          requestID,
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return key, nil
}

// ListKeys implements KMS.
func (c *Client) ListKeys(ctx context.Context, page Page) (*KeyList, error) {
	r := kms.CreateListKeysRequest()
	r.PageNumber, r.PageSize = optional(page.Number), optional(page.Size)
	resp, err := send(ctx, c, (*kms.Client).ListKeys, r)
	if err != nil {
		return nil, err
	}
	f := fieldsOf(r, resp.RequestId)
	list := &KeyList{
		Page:      f.page(resp.PageNumber, resp.PageSize, resp.TotalCount, len(resp.Keys.Key)),
		Total:     resp.TotalCount,
		RequestID: resp.RequestId,
	}
	for _, k := range resp.Keys.Key {
		list.Keys = append(list.Keys, KeyRef{KeyID: f.required("KeyId", k.KeyId), ARN: f.required("KeyArn", k.KeyArn)})
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return list, nil
}

// optional leaves a parameter out when it is 0.
func optional(n int) requests.Integer {
	if n == 0 {
		return ""
	}
	return requests.NewInteger(n)
}

// EnableKey implements KMS.
func (c *Client) EnableKey(ctx context.Context, keyID string) (Ack, error) {
	r := kms.CreateEnableKeyRequest()
	r.KeyId = keyID
	resp, err := send(ctx, c, (*kms.Client).EnableKey, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// DisableKey implements KMS.
func (c *Client) DisableKey(ctx context.Context, keyID string) (Ack, error) {
	r := kms.CreateDisableKeyRequest()
	r.KeyId = keyID
	resp, err := send(ctx, c, (*kms.Client).DisableKey, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// ScheduleKeyDeletion implements KMS.
func (c *Client) ScheduleKeyDeletion(ctx context.Context, keyID string, days int) (Ack, error) {
	r := kms.CreateScheduleKeyDeletionRequest()
	r.KeyId = keyID
	r.PendingWindowInDays = requests.NewInteger(days)
	resp, err := send(ctx, c, (*kms.Client).ScheduleKeyDeletion, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// CancelKeyDeletion implements KMS.
func (c *Client) CancelKeyDeletion(ctx context.Context, keyID string) (Ack, error) {
	r := kms.CreateCancelKeyDeletionRequest()
	r.KeyId = keyID
	resp, err := send(ctx, c, (*kms.Client).CancelKeyDeletion, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// UpdateKeyDescription implements KMS.
func (c *Client) UpdateKeyDescription(ctx context.Context, keyID, description string) (Ack, error) {
	r := kms.CreateUpdateKeyDescriptionRequest()
	r.KeyId = keyID
	// The SDK leaves empty fields out, but the parameter is required.
	r.QueryParams["Description"] = description
	resp, err := send(ctx, c, (*kms.Client).UpdateKeyDescription, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// SetDeletionProtection implements KMS.
func (c *Client) SetDeletionProtection(ctx context.Context, keyARN string, enabled bool, reason string) (Ack, error) {
	r := kms.CreateSetDeletionProtectionRequest()
	r.ProtectedResourceArn, r.DeletionProtectionDescription = keyARN, reason
	r.EnableDeletionProtection = requests.NewBoolean(enabled)
	resp, err := send(ctx, c, (*kms.Client).SetDeletionProtection, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// ack checks the answer of an operation that returns only its RequestId, which
// is thus the one sign that KMS has answered at all.
func ack(r requests.AcsRequest, requestID string) (Ack, error) {
	if err := fieldsOf(r, requestID).err(); err != nil {
		return Ack{}, err
	}
	return Ack{RequestID: requestID}, nil
}
