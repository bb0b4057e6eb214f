package broker

import (
	"context"
	"errors"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Decrypted is the answer of Decrypt. The caller wipes Plaintext.
type Decrypted struct {
	Key          string
	KeyID        string
	KeyVersionID string
	Plaintext    []byte
	RequestID    string
}

// Decrypt opens a ciphertext blob.
//
// KMS finds the CMK from the blob, which nobody else can read, and opens
// whatever the broker's own RAM user may open. So the caller is authorized
// twice: before the call for the key it names (or, naming none, for some key of
// the region), and afterwards for the key that the CMK in the answer belongs
// to. When the second answer is no, the plaintext is wiped and the refusal says
// nothing about the blob.
//
// A blob is opened in the region where it was made, which nothing in it tells: the
// one that is named, or the home region of the named key, or the default one.
func (b *Broker) Decrypt(ctx context.Context, call Call, key, region, ciphertextBlob string, encryptionContext map[string]string) (*Decrypted, error) {
	ctx = withCall(ctx, call)
	event := audit.Event{Action: string(authz.Decrypt), Key: key}
	answer, err := func() (*Decrypted, error) {
		endpoint, err := b.authorizeDecrypt(call.Caller, key, region, encryptionContext)
		if err != nil {
			return nil, err
		}
		if ciphertextBlob == "" {
			return nil, failure.New(failure.Invalid, "CIPHERTEXT", "the ciphertext is empty")
		}
		resp, err := endpoint.KMS.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: ciphertextBlob, Context: encryptionContext})
		if err != nil {
			return nil, discreet(err)
		}
		event.KeyID, event.RequestID = resp.KeyID, resp.RequestID
		owner, err := b.authorizeAnswer(call.Caller, key, endpoint.Region, resp.KeyID)
		if err != nil {
			clear(resp.Plaintext)
			return nil, err
		}
		event.Key = owner.Name
		return &Decrypted{Key: owner.Name, KeyID: resp.KeyID, KeyVersionID: resp.KeyVersionID, Plaintext: resp.Plaintext, RequestID: resp.RequestID}, nil
	}()
	if err := b.finish(ctx, event, err); err != nil {
		if answer != nil {
			clear(answer.Plaintext)
		}
		return nil, err
	}
	return answer, nil
}

// discreet drops KMS's own sentence from a refusal to decrypt. Whose blob it was
// is not known then, and the sentence may name an account and a key.
func discreet(err error) error {
	e, ok := errors.AsType[*kmsapi.Error](err)
	if !ok || e.Code == "" {
		return err
	}
	quiet := *e
	quiet.Message = "KMS refused to decrypt"
	return &quiet
}

func (b *Broker) authorizeDecrypt(caller authz.Caller, name, region string, encryptionContext map[string]string) (importer.Endpoint, error) {
	none := importer.Endpoint{}
	if name != "" {
		cmk, _, err := b.authorize(caller, authz.Decrypt, name, region, encryptionContext)
		if err != nil {
			return none, err
		}
		return b.Regions.In(cmk.Region)
	}
	if err := checkContext(encryptionContext); err != nil {
		return none, err
	}
	endpoint, err := b.Regions.In(region)
	if err != nil {
		return none, err
	}
	policy := b.policy.Load()
	for _, key := range b.Keyring.Keys() {
		if _, there := key.CurrentIn(endpoint.Region); there && policy.Allows(caller, authz.Decrypt, key.Name) {
			return endpoint, nil
		}
	}
	return none, denied(caller, authz.Decrypt, "")
}

// authorizeAnswer returns the key that a CMK belongs to, in any generation, if
// the caller may decrypt with it and it is the one that was named.
func (b *Broker) authorizeAnswer(caller authz.Caller, named, region, keyID string) (*keyring.Key, error) {
	owner, ok := b.Keyring.ByCMK(keyID)
	if ok {
		cmk, _ := owner.CMK(keyID)
		ok = cmk.Region == region
	}
	if !ok || (named != "" && owner.Name != named) || !b.policy.Load().Allows(caller, authz.Decrypt, owner.Name) {
		return nil, failure.New(failure.Denied, "FOREIGN_CIPHERTEXT",
			"the ciphertext was not made with a key that %s may decrypt with", caller).
			WithHint("check that the ciphertext and the key belong together")
	}
	return owner, nil
}
