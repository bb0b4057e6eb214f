package wire

// Results of operations, for [WriteResult]. Names and types are those of the KMS
// documentation.

// Ciphertext is the result of whatever encrypts.
type Ciphertext struct {
	KeyID          string `json:"KeyId"`
	KeyVersionID   string `json:"KeyVersionId"`
	CiphertextBlob string
}

// Plaintext is the result of Decrypt.
type Plaintext struct {
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	Plaintext    string // base64
}

// DataKey is the result of GenerateDataKey.
type DataKey struct {
	Ciphertext
	Plaintext string // base64
}

// KeyList is the result of ListKeys, which names keys and says nothing more.
type KeyList struct {
	Page
	Keys struct {
		Key []KeyEntry
	}
}

// KeyEntry is a key of a [KeyList].
type KeyEntry struct {
	KeyID  string `json:"KeyId"`
	KeyArn string
}

// AliasList is the result of ListAliases and ListAliasesByKeyId.
type AliasList struct {
	Page
	Aliases struct {
		Alias []AliasEntry
	}
}

// AliasEntry is an alias of an [AliasList].
type AliasEntry struct {
	KeyID     string `json:"KeyId"`
	AliasName string // with its prefix
	AliasArn  string
}

// KeyMetadata describes a key; everything is text. Fields that do not apply are
// empty, except those marked omitempty, which the service leaves out.
type KeyMetadata struct {
	KeyID             string `json:"KeyId"`
	Arn               string
	KeyState          string
	KeyUsage          string
	KeySpec           string
	Origin            string
	ProtectionLevel   string
	Description       string
	Creator           string
	CreationDate      string
	PrimaryKeyVersion string
	LastRotationDate  string
	AutomaticRotation string
	RotationInterval  string `json:",omitempty"`
	NextRotationDate  string `json:",omitempty"`
	DeleteDate        string
	MaterialExpire    string `json:"MaterialExpireTime"`
	Protection        string `json:"DeletionProtection,omitempty"`
	ProtectionWhy     string `json:"DeletionProtectionDescription,omitempty"`
	Instance          string `json:"DKMSInstanceId,omitempty"`
}

// KeyDescription is the result of DescribeKey.
type KeyDescription struct {
	KeyMetadata KeyMetadata
}
