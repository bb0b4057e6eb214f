package broker

import (
	"context"
	"maps"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// ReEncryption asks for a blob to be moved to the current CMK of a key.
type ReEncryption struct {
	CiphertextBlob string
	SourceContext  map[string]string
	SourceRegion   string // as Decrypt takes it
	Key            string
	Context        map[string]string
	Region         string // as Encrypt takes it
}

// ReEncrypted is the answer of ReEncrypt.
type ReEncrypted struct {
	Encrypted
	SourceKey, SourceKeyID string
	// Unchanged: the current CMK made the blob already.
	Unchanged bool
}

// ReEncrypt is Decrypt with its rule and then Encrypt, and the plaintext stays
// here. KMS's own ReEncrypt would do both without letting the broker look at whose
// CMK opened the blob.
func (b *Broker) ReEncrypt(ctx context.Context, call Call, req ReEncryption) (*ReEncrypted, error) {
	// Asked before anything is decrypted, so that a missing grant costs nothing.
	_, err := b.allowed(authz.Request{Caller: call.Caller, Operation: authz.Encrypt, Key: req.Key, Context: req.Context})
	var cmk *keyring.CMK
	if err == nil {
		cmk, _, err = b.locate(req.Key, req.Region)
	}
	if err != nil {
		return nil, b.finish(withApplication(ctx, call), encryptEvent(req.Key), err)
	}
	opened, err := b.Decrypt(ctx, call, "", req.SourceRegion, req.CiphertextBlob, req.SourceContext)
	if err != nil {
		return nil, err
	}
	defer clear(opened.Plaintext)
	answer := &ReEncrypted{SourceKey: opened.Key, SourceKeyID: opened.KeyID}
	if opened.KeyID == cmk.KeyID && maps.Equal(req.SourceContext, req.Context) {
		answer.Unchanged = true
		answer.Encrypted = Encrypted{Key: opened.Key, KeyID: opened.KeyID, KeyVersionID: opened.KeyVersionID, CiphertextBlob: req.CiphertextBlob, RequestID: opened.RequestID}
		return answer, nil
	}
	sealed, err := b.Encrypt(ctx, call, req.Key, req.Region, opened.Plaintext, req.Context)
	if err != nil {
		return nil, err
	}
	answer.Encrypted = *sealed
	return answer, nil
}
