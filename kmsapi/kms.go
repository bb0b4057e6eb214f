// Package kmsapi is Alibaba Cloud KMS (API version 2016-01-20) as Go: the
// operations kmsbroker needs, their requests and answers, their errors, and a
// client over the official SDK.
//
// What makes a service of it that can be relied on, quotas, repetition and
// fallback, is in kmsapi/reliable. The server's side of the same protocol is in
// kmsapi/wire, and a KMS that runs on this machine in kmsapi/emulator.
package kmsapi

import (
	"context"
	"time"
)

// KMS is the part of Alibaba Cloud KMS that kmsbroker uses. One value speaks to
// one region with one identity. All methods may be called concurrently, honour
// their context, and fail with an [*Error]. A failure of an operation that changes
// something may hide a success: see [Error.OutcomeUnknown]. A [Client] makes
// exactly one attempt at one endpoint; package reliable makes more of it.
type KMS interface {
	// CreateKey makes a CMK. The service offers no idempotency token: after an
	// unknown outcome look for the tags of the request with ListTagResources
	// before trying again.
	CreateKey(ctx context.Context, req CreateKeyRequest) (*KeyMetadata, error)
	// DescribeKey accepts a key ID, an ARN or an alias.
	DescribeKey(ctx context.Context, keyID string) (*KeyMetadata, error)
	ListKeys(ctx context.Context, page Page) (*KeyList, error)
	EnableKey(ctx context.Context, keyID string) (Ack, error)
	DisableKey(ctx context.Context, keyID string) (Ack, error)
	// ScheduleKeyDeletion takes 7 to 366 days.
	ScheduleKeyDeletion(ctx context.Context, keyID string, days int) (Ack, error)
	CancelKeyDeletion(ctx context.Context, keyID string) (Ack, error)
	// UpdateKeyDescription takes up to MaxDescription characters; an empty
	// description removes the present one.
	UpdateKeyDescription(ctx context.Context, keyID, description string) (Ack, error)
	// SetDeletionProtection takes the key's ARN, the one name that all versions
	// of the API understand here, and a reason for whoever wants to delete it.
	SetDeletionProtection(ctx context.Context, keyARN string, enabled bool, reason string) (Ack, error)

	GetParametersForImport(ctx context.Context, req ImportParametersRequest) (*ImportParameters, error)
	ImportKeyMaterial(ctx context.Context, req ImportKeyMaterialRequest) (Ack, error)
	DeleteKeyMaterial(ctx context.Context, keyID string) (Ack, error)

	// The alias operations take names with their prefix, "alias/payments".
	CreateAlias(ctx context.Context, keyID, alias string) (Ack, error)
	UpdateAlias(ctx context.Context, keyID, alias string) (Ack, error)
	DeleteAlias(ctx context.Context, alias string) (Ack, error)
	ListAliases(ctx context.Context, page Page) (*AliasList, error)
	// ListAliasesByKeyID lists the aliases of one key.
	ListAliasesByKeyID(ctx context.Context, keyID string, page Page) (*AliasList, error)

	// TagKey (TagResource) adds tags to a key, up to MaxTags in all; a tag whose
	// name the key has already gets the new value.
	TagKey(ctx context.Context, keyID string, tags []Tag) (Ack, error)
	// UntagKey (UntagResource) removes tags by their names.
	UntagKey(ctx context.Context, keyID string, names []string) (Ack, error)
	// KeyTags (ListResourceTags) lists the tags of a key.
	KeyTags(ctx context.Context, keyID string) ([]Tag, error)
	// ListTagResources finds the keys that carry all the given tags.
	ListTagResources(ctx context.Context, req ListTagResourcesRequest) (*TaggedKeys, error)

	Encrypt(ctx context.Context, req EncryptRequest) (*EncryptResponse, error)
	// Decrypt has no key parameter: KMS finds the key from the ciphertext, and
	// whoever needs a particular key must check KeyID in the answer.
	Decrypt(ctx context.Context, req DecryptRequest) (*DecryptResponse, error)
	GenerateDataKey(ctx context.Context, req DataKeyRequest) (*DataKeyResponse, error)
	// GenerateDataKeyWithoutPlaintext answers with a nil Plaintext.
	GenerateDataKeyWithoutPlaintext(ctx context.Context, req DataKeyRequest) (*DataKeyResponse, error)
}

// Limits of the service (documentation of Encrypt, GenerateDataKey, CreateKey,
// TagResource).
const (
	MaxPlaintext         = 6144 // bytes, before base64
	MaxDataKey           = 1024 // bytes
	MaxEncryptionContext = 8192 // characters of JSON
	MaxDescription       = 8192 // characters
	MaxTags              = 20   // of one key
	MaxPageSize          = 100
)

// Ack is the answer of operations that return nothing but their RequestId.
type Ack struct {
	RequestID string
}

// Page selects a part of a list. Zero values mean the service's defaults, the
// first page of ten.
type Page struct {
	Number int // from 1
	Size   int // 1 to 100
}

// Tag is a name and a value attached to a key.
type Tag struct {
	Key   string `json:"TagKey"`
	Value string `json:"TagValue"`
}

// KeyState is the state of a CMK.
type KeyState string

// The states of the documentation's "Impact of CMK states on API call".
const (
	Enabled         KeyState = "Enabled"
	Disabled        KeyState = "Disabled"
	PendingDeletion KeyState = "PendingDeletion"
	PendingImport   KeyState = "PendingImport"
)

// Values of CreateKeyRequest and KeyMetadata.
const (
	OriginExternal   = "EXTERNAL"
	OriginAliyunKMS  = "Aliyun_KMS"
	KeySpecAES256    = "Aliyun_AES_256"
	UsageEncrypt     = "ENCRYPT/DECRYPT"
	ProtectionSW     = "SOFTWARE"
	ProtectionHSM    = "HSM"
	WrappingRSA2048  = "RSA_2048"
	ResourceTypeKey  = "key"
	AliasPrefix      = "alias/"
	APIVersion       = "2016-01-20"
	TimeLayout       = "2006-01-02T15:04:05Z"
	EndpointTemplate = "kms.%s.aliyuncs.com"
)

// CreateKeyRequest asks for a symmetric CMK.
type CreateKeyRequest struct {
	Origin          string // OriginExternal or OriginAliyunKMS
	KeySpec         string // KeySpecAES256
	KeyUsage        string // UsageEncrypt
	ProtectionLevel string // ProtectionSW or ProtectionHSM; empty is the service's default
	Description     string
	InstanceID      string // DKMSInstanceId of a KMS instance, empty for a default CMK
	Tags            []Tag
}

// KeyMetadata describes a CMK. Times are zero where the service sends nothing.
type KeyMetadata struct {
	KeyID              string // always the ID, never an alias or ARN
	ARN                string
	State              KeyState
	Usage              string
	Spec               string
	Origin             string
	ProtectionLevel    string
	Description        string
	Creator            string
	CreatedAt          time.Time
	PrimaryKeyVersion  string
	DeleteAt           time.Time
	MaterialExpireTime time.Time // zero: never expires
	DeletionProtection string    // "Enabled", "Disabled" or empty
	InstanceID         string
	RequestID          string
}

// KeyList is one page of ListKeys.
type KeyList struct {
	Keys      []KeyRef
	Page      Page
	Total     int
	RequestID string
}

// KeyRef names a CMK. KMS lists nothing more: ask DescribeKey for the rest.
type KeyRef struct {
	KeyID string
	ARN   string
}

// ImportParametersRequest asks for a wrapping key.
type ImportParametersRequest struct {
	KeyID             string
	WrappingAlgorithm string // for example RSAES_OAEP_SHA_256
	WrappingKeySpec   string // WrappingRSA2048
}

// ImportParameters is a wrapping key and the token that belongs to it, good for
// 24 hours, for this CMK and this algorithm.
type ImportParameters struct {
	KeyID     string
	PublicKey []byte // DER SubjectPublicKeyInfo
	// ImportToken is a bearer secret; keep it out of logs and databases.
	ImportToken []byte
	ExpiresAt   time.Time
	RequestID   string
}

// ImportKeyMaterialRequest delivers wrapped key material.
type ImportKeyMaterialRequest struct {
	KeyID                string
	EncryptedKeyMaterial []byte
	ImportToken          []byte
	ExpiresAt            time.Time // zero: the material never expires; whole seconds
}

// AliasList is one page of ListAliases or ListAliasesByKeyID.
type AliasList struct {
	Aliases   []Alias
	Page      Page
	Total     int
	RequestID string
}

// Alias is a name for a CMK.
type Alias struct {
	Name  string // with its prefix, "alias/payments"
	KeyID string
	ARN   string
}

// ListTagResourcesRequest selects keys by their tags.
type ListTagResourcesRequest struct {
	Tags      []Tag
	NextToken string
}

// TaggedKeys is one page of ListTagResources: the IDs of the matching keys, each
// once. NextToken is empty on the last page.
type TaggedKeys struct {
	KeyIDs    []string
	NextToken string
	RequestID string
}

// EncryptRequest encrypts up to MaxPlaintext bytes.
type EncryptRequest struct {
	KeyID     string // ID, ARN or alias
	Plaintext []byte
	Context   map[string]string
}

// EncryptResponse carries the ciphertext blob, base64 text as the service gave
// it, and opaque.
type EncryptResponse struct {
	KeyID          string
	KeyVersionID   string
	CiphertextBlob string
	RequestID      string
}

// DecryptRequest opens a ciphertext blob; the context must equal the one given
// at encryption.
type DecryptRequest struct {
	CiphertextBlob string
	Context        map[string]string
}

// DecryptResponse carries the plaintext and the key that opened it. The caller
// wipes Plaintext.
type DecryptResponse struct {
	KeyID        string
	KeyVersionID string
	Plaintext    []byte
	RequestID    string
}

// DataKeyRequest asks for a random data key of 1 to MaxDataKey bytes, encrypted
// under a CMK.
type DataKeyRequest struct {
	KeyID   string
	Bytes   int // 0 means 32
	Context map[string]string
}

// DataKeyResponse carries a data key. The caller wipes Plaintext.
type DataKeyResponse struct {
	KeyID          string
	KeyVersionID   string
	Plaintext      []byte
	CiphertextBlob string
	RequestID      string
}
