package reliable

import (
	"context"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Class is a group of operations that share a quota.
type Class string

// The classes of "Performance data for KMS".
const (
	Crypto    Class = "cryptographic operations"
	Reads     Class = "key reads"
	Writes    Class = "key writes"
	CreateKey Class = "CreateKey"
)

// repeat says when an operation may be sent again. A refusal for a quota and a
// connection that was never made always allow it: nothing was done.
type repeat int

const (
	// unlessUnknown: a second execution would do harm, or would be refused
	// because of the first and so hide its success. After an unknown outcome the
	// caller has to look what became of it.
	unlessUnknown repeat = iota
	// always: a second execution leaves everything as the first did.
	always
)

type operation struct {
	class  Class
	repeat repeat
}

// operations has a row for each method of [kmsapi.KMS]. The reasons follow from
// "Impact of CMK states on API call".
var operations = map[string]operation{
	"Encrypt":                         {Crypto, always},
	"Decrypt":                         {Crypto, always},
	"GenerateDataKey":                 {Crypto, always},
	"GenerateDataKeyWithoutPlaintext": {Crypto, always},

	"DescribeKey":            {Reads, always},
	"ListKeys":               {Reads, always},
	"GetParametersForImport": {Reads, always}, // earlier parameters stay good
	"ListAliases":            {Reads, always},
	"ListAliasesByKeyID":     {Reads, always},
	"KeyTags":                {Reads, always}, // the service allows it more often
	"ListTagResources":       {Reads, always},

	"CreateKey": {CreateKey, unlessUnknown}, // would make another key, which costs money

	"EnableKey":             {Writes, always},
	"DisableKey":            {Writes, always},
	"ScheduleKeyDeletion":   {Writes, unlessUnknown}, // refused in PendingDeletion
	"CancelKeyDeletion":     {Writes, unlessUnknown}, // refused outside PendingDeletion
	"UpdateKeyDescription":  {Writes, always},
	"SetDeletionProtection": {Writes, always},
	"ImportKeyMaterial":     {Writes, always},        // the token is reusable, the material identical
	"DeleteKeyMaterial":     {Writes, always},        // works in PendingImport too
	"CreateAlias":           {Writes, unlessUnknown}, // AliasAlreadyExists
	"UpdateAlias":           {Writes, always},
	"DeleteAlias":           {Writes, unlessUnknown}, // Forbidden.AliasNotFound
	"TagKey":                {Writes, always},
	"UntagKey":              {Writes, always},
}

// mayRepeat reports whether the operation may be sent again after failure.
func (op operation) mayRepeat(failure *kmsapi.Error) bool {
	return failure.Temporary() && (op.repeat == always || !failure.OutcomeUnknown())
}

// changes reports that a lost answer leaves the caller in doubt.
func (op operation) changes() bool { return op.class == Writes || op.class == CreateKey }

// CreateKey implements kmsapi.KMS.
func (c *Client) CreateKey(ctx context.Context, req kmsapi.CreateKeyRequest) (*kmsapi.KeyMetadata, error) {
	return callWith(ctx, c, "CreateKey", kmsapi.KMS.CreateKey, req)
}

// DescribeKey implements kmsapi.KMS.
func (c *Client) DescribeKey(ctx context.Context, keyID string) (*kmsapi.KeyMetadata, error) {
	return callWith(ctx, c, "DescribeKey", kmsapi.KMS.DescribeKey, keyID)
}

// ListKeys implements kmsapi.KMS.
func (c *Client) ListKeys(ctx context.Context, page kmsapi.Page) (*kmsapi.KeyList, error) {
	return callWith(ctx, c, "ListKeys", kmsapi.KMS.ListKeys, page)
}

// EnableKey implements kmsapi.KMS.
func (c *Client) EnableKey(ctx context.Context, keyID string) (kmsapi.Ack, error) {
	return callWith(ctx, c, "EnableKey", kmsapi.KMS.EnableKey, keyID)
}

// DisableKey implements kmsapi.KMS.
func (c *Client) DisableKey(ctx context.Context, keyID string) (kmsapi.Ack, error) {
	return callWith(ctx, c, "DisableKey", kmsapi.KMS.DisableKey, keyID)
}

// ScheduleKeyDeletion implements kmsapi.KMS.
func (c *Client) ScheduleKeyDeletion(ctx context.Context, keyID string, days int) (kmsapi.Ack, error) {
	return call(ctx, c, "ScheduleKeyDeletion", func(ctx context.Context, kms kmsapi.KMS) (kmsapi.Ack, error) {
		return kms.ScheduleKeyDeletion(ctx, keyID, days)
	})
}

// CancelKeyDeletion implements kmsapi.KMS.
func (c *Client) CancelKeyDeletion(ctx context.Context, keyID string) (kmsapi.Ack, error) {
	return callWith(ctx, c, "CancelKeyDeletion", kmsapi.KMS.CancelKeyDeletion, keyID)
}

// UpdateKeyDescription implements kmsapi.KMS.
func (c *Client) UpdateKeyDescription(ctx context.Context, keyID, description string) (kmsapi.Ack, error) {
	return call(ctx, c, "UpdateKeyDescription", func(ctx context.Context, kms kmsapi.KMS) (kmsapi.Ack, error) {
		return kms.UpdateKeyDescription(ctx, keyID, description)
	})
}

// SetDeletionProtection implements kmsapi.KMS.
func (c *Client) SetDeletionProtection(ctx context.Context, keyARN string, enabled bool, reason string) (kmsapi.Ack, error) {
	return call(ctx, c, "SetDeletionProtection", func(ctx context.Context, kms kmsapi.KMS) (kmsapi.Ack, error) {
		return kms.SetDeletionProtection(ctx, keyARN, enabled, reason)
	})
}

// GetParametersForImport implements kmsapi.KMS.
func (c *Client) GetParametersForImport(ctx context.Context, req kmsapi.ImportParametersRequest) (*kmsapi.ImportParameters, error) {
	return callWith(ctx, c, "GetParametersForImport", kmsapi.KMS.GetParametersForImport, req)
}

// ImportKeyMaterial implements kmsapi.KMS.
func (c *Client) ImportKeyMaterial(ctx context.Context, req kmsapi.ImportKeyMaterialRequest) (kmsapi.Ack, error) {
	return callWith(ctx, c, "ImportKeyMaterial", kmsapi.KMS.ImportKeyMaterial, req)
}

// DeleteKeyMaterial implements kmsapi.KMS.
func (c *Client) DeleteKeyMaterial(ctx context.Context, keyID string) (kmsapi.Ack, error) {
	return callWith(ctx, c, "DeleteKeyMaterial", kmsapi.KMS.DeleteKeyMaterial, keyID)
}

// CreateAlias implements kmsapi.KMS.
func (c *Client) CreateAlias(ctx context.Context, keyID, alias string) (kmsapi.Ack, error) {
	return call(ctx, c, "CreateAlias", func(ctx context.Context, kms kmsapi.KMS) (kmsapi.Ack, error) {
		return kms.CreateAlias(ctx, keyID, alias)
	})
}

// UpdateAlias implements kmsapi.KMS.
func (c *Client) UpdateAlias(ctx context.Context, keyID, alias string) (kmsapi.Ack, error) {
	return call(ctx, c, "UpdateAlias", func(ctx context.Context, kms kmsapi.KMS) (kmsapi.Ack, error) {
		return kms.UpdateAlias(ctx, keyID, alias)
	})
}

// DeleteAlias implements kmsapi.KMS.
func (c *Client) DeleteAlias(ctx context.Context, alias string) (kmsapi.Ack, error) {
	return callWith(ctx, c, "DeleteAlias", kmsapi.KMS.DeleteAlias, alias)
}

// ListAliases implements kmsapi.KMS.
func (c *Client) ListAliases(ctx context.Context, page kmsapi.Page) (*kmsapi.AliasList, error) {
	return callWith(ctx, c, "ListAliases", kmsapi.KMS.ListAliases, page)
}

// ListAliasesByKeyID implements kmsapi.KMS.
func (c *Client) ListAliasesByKeyID(ctx context.Context, keyID string, page kmsapi.Page) (*kmsapi.AliasList, error) {
	return call(ctx, c, "ListAliasesByKeyID", func(ctx context.Context, kms kmsapi.KMS) (*kmsapi.AliasList, error) {
		return kms.ListAliasesByKeyID(ctx, keyID, page)
	})
}

// TagKey implements kmsapi.KMS.
func (c *Client) TagKey(ctx context.Context, keyID string, tags []kmsapi.Tag) (kmsapi.Ack, error) {
	return call(ctx, c, "TagKey", func(ctx context.Context, kms kmsapi.KMS) (kmsapi.Ack, error) {
		return kms.TagKey(ctx, keyID, tags)
	})
}

// UntagKey implements kmsapi.KMS.
func (c *Client) UntagKey(ctx context.Context, keyID string, names []string) (kmsapi.Ack, error) {
	return call(ctx, c, "UntagKey", func(ctx context.Context, kms kmsapi.KMS) (kmsapi.Ack, error) {
		return kms.UntagKey(ctx, keyID, names)
	})
}

// KeyTags implements kmsapi.KMS.
func (c *Client) KeyTags(ctx context.Context, keyID string) ([]kmsapi.Tag, error) {
	return callWith(ctx, c, "KeyTags", kmsapi.KMS.KeyTags, keyID)
}

// ListTagResources implements kmsapi.KMS.
func (c *Client) ListTagResources(ctx context.Context, req kmsapi.ListTagResourcesRequest) (*kmsapi.TaggedKeys, error) {
	return callWith(ctx, c, "ListTagResources", kmsapi.KMS.ListTagResources, req)
}

// Encrypt implements kmsapi.KMS.
func (c *Client) Encrypt(ctx context.Context, req kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	return callWith(ctx, c, "Encrypt", kmsapi.KMS.Encrypt, req)
}

// Decrypt implements kmsapi.KMS.
func (c *Client) Decrypt(ctx context.Context, req kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	return callWith(ctx, c, "Decrypt", kmsapi.KMS.Decrypt, req)
}

// GenerateDataKey implements kmsapi.KMS.
func (c *Client) GenerateDataKey(ctx context.Context, req kmsapi.DataKeyRequest) (*kmsapi.DataKeyResponse, error) {
	return callWith(ctx, c, "GenerateDataKey", kmsapi.KMS.GenerateDataKey, req)
}

// GenerateDataKeyWithoutPlaintext implements kmsapi.KMS.
func (c *Client) GenerateDataKeyWithoutPlaintext(ctx context.Context, req kmsapi.DataKeyRequest) (*kmsapi.DataKeyResponse, error) {
	return callWith(ctx, c, "GenerateDataKeyWithoutPlaintext", kmsapi.KMS.GenerateDataKeyWithoutPlaintext, req)
}
