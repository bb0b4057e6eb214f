package broker

import (
	"cmp"
	"context"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/internal/tracing"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Encrypt encrypts up to [kmsapi.MaxPlaintext] bytes with the current CMK of a
// key, in its home region or in the one that is named.
func (b *Broker) Encrypt(ctx context.Context, call Call, key, region string, plaintext []byte, encryptionContext map[string]string) (*Encrypted, error) {
	return b.encrypt(ctx, call, key, region, plaintext, encryptionContext, own{})
}

func (b *Broker) encrypt(ctx context.Context, call Call, key, region string, plaintext []byte, encryptionContext map[string]string, ours own) (*Encrypted, error) {
	ctx, end := tracing.Start(withApplication(ctx, call), "core encrypt", tracing.Key, recordable(key))
	event := encryptEvent(key)
	event.Details = ours.details
	answer, err := func() (*Encrypted, error) {
		cmk, kms, err := b.authorize(authz.Request{Caller: call.Caller, Operation: authz.Encrypt, Key: key, Context: encryptionContext}, region)
		if err != nil {
			return nil, err
		}
		event.KeyID = cmk.KeyID
		if most := ours.limit(kmsapi.MaxPlaintext); len(plaintext) > most {
			return nil, failure.New(failure.Invalid, "PLAINTEXT_SIZE", "the plaintext has %d bytes, KMS encrypts at most %d", len(plaintext), most).
				WithHint("encrypt the data with a data key and the data key with KMS")
		}
		resp, err := kms.Encrypt(ctx, kmsapi.EncryptRequest{KeyID: cmk.KeyID, Plaintext: plaintext, Context: ours.bound(encryptionContext)})
		if err != nil {
			return nil, err
		}
		event.RequestID = resp.RequestID
		if err := sameCMK(resp.KeyID, cmk); err != nil {
			return nil, err
		}
		return &Encrypted{Key: key, KeyID: resp.KeyID, KeyVersionID: resp.KeyVersionID, CiphertextBlob: resp.CiphertextBlob, RequestID: resp.RequestID}, nil
	}()
	err = b.finish(ctx, event, err)
	if end(err); err != nil {
		return nil, err
	}
	return answer, nil
}

func encryptEvent(key string) audit.Event {
	return audit.Event{Action: string(authz.Encrypt), Key: key, Application: true}
}

// Encrypted is the answer of Encrypt.
type Encrypted struct {
	Key            string
	KeyID          string
	KeyVersionID   string
	CiphertextBlob string
	RequestID      string
}

// DataKey is the answer of GenerateDataKey. The caller wipes Plaintext.
type DataKey struct {
	Encrypted
	Plaintext []byte // nil when it was not asked for
}

// GenerateDataKey has KMS make a random data key of 1 to [kmsapi.MaxDataKey]
// bytes (0 means 32) under the current CMK of a key.
func (b *Broker) GenerateDataKey(ctx context.Context, call Call, key, region string, bytes int, encryptionContext map[string]string, withPlaintext bool) (*DataKey, error) {
	op := authz.GenerateDataKey
	if !withPlaintext {
		op = authz.GenerateDataKeyWithoutPlaintext
	}
	ctx, end := tracing.Start(withApplication(ctx, call), "core generate data key", tracing.Key, recordable(key))
	event := audit.Event{Action: string(op), Key: key, Application: true}
	answer, err := func() (*DataKey, error) {
		cmk, kms, err := b.authorize(authz.Request{Caller: call.Caller, Operation: op, Key: key, Context: encryptionContext}, region)
		if err != nil {
			return nil, err
		}
		event.KeyID = cmk.KeyID
		if bytes < 0 || bytes > kmsapi.MaxDataKey {
			return nil, failure.New(failure.Invalid, "DATA_KEY_SIZE", "a data key has 1 to %d bytes, not %d", kmsapi.MaxDataKey, bytes)
		}
		generate := kms.GenerateDataKey
		if !withPlaintext {
			generate = kms.GenerateDataKeyWithoutPlaintext
		}
		resp, err := generate(ctx, kmsapi.DataKeyRequest{KeyID: cmk.KeyID, Bytes: bytes, Context: encryptionContext})
		if err != nil {
			return nil, err
		}
		event.RequestID = resp.RequestID
		if err := sameCMK(resp.KeyID, cmk); err != nil {
			clear(resp.Plaintext)
			return nil, err
		}
		encrypted := Encrypted{Key: key, KeyID: resp.KeyID, KeyVersionID: resp.KeyVersionID, CiphertextBlob: resp.CiphertextBlob, RequestID: resp.RequestID}
		return &DataKey{Encrypted: encrypted, Plaintext: resp.Plaintext}, nil
	}()
	err = b.finish(ctx, event, err)
	if end(err); err != nil {
		if answer != nil {
			clear(answer.Plaintext)
		}
		return nil, err
	}
	return answer, nil
}

// sameCMK refuses an answer about another CMK than the one that was asked for.
func sameCMK(answered string, asked *keyring.CMK) error {
	if answered != asked.KeyID {
		return failure.New(failure.Corrupt, "CMK_FOREIGN", "KMS answered for CMK %.80s instead of %s", answered, asked.KeyID)
	}
	return nil
}

// locate returns the current CMK of a key, in its home region or in the one that
// is named, and the KMS of that.
func (b *Broker) locate(name, region string) (*keyring.CMK, kmsapi.KMS, error) {
	key, err := b.Keyring.Key(name)
	if err != nil {
		return nil, nil, err
	}
	cmk, endpoint, err := b.currentIn(key, region)
	if err != nil {
		return nil, nil, err
	}
	return cmk, endpoint.KMS, nil
}

func (b *Broker) currentIn(key *keyring.Key, region string) (*keyring.CMK, importer.Endpoint, error) {
	cmk, ok := key.CurrentIn(cmp.Or(region, key.Region))
	switch {
	case !ok && region == "":
		// Another region's CMK would make ciphertexts that the home region cannot open.
		return nil, importer.Endpoint{}, failure.New(failure.WrongState, "REGION_UNFINISHED", "key %q is not finished in its home region %s", key.Name, key.Region).
			WithHint("an administrator can finish it with `kmsbrokerctl key import %s`; until then name another region", key.Name)
	case !ok:
		return nil, importer.Endpoint{}, failure.New(failure.NotFound, "REGION", "key %q has no CMK in region %.40q", key.Name, region).
			WithHint("it has one in %s", strings.Join(key.Regions(), ", "))
	}
	endpoint, err := b.Regions.In(cmk.Region)
	return cmk, endpoint, err
}

func checkContext(encryptionContext map[string]string) error {
	size := 0
	for name, value := range encryptionContext {
		size += len(name) + len(value)
		if strings.HasPrefix(name, authz.ReservedContext) {
			return failure.New(failure.Denied, "RESERVED_CONTEXT",
				"encryption context entries that begin %q are the broker's own", authz.ReservedContext).
				WithHint("rename the entry")
		}
	}
	if size > kmsapi.MaxEncryptionContext {
		return failure.New(failure.Invalid, "CONTEXT_SIZE", "the encryption context has %d bytes, KMS takes at most %d",
			size, kmsapi.MaxEncryptionContext)
	}
	return nil
}
