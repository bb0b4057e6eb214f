package alibaba

import (
	"context"
	"encoding/base64"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

func encrypt(ctx context.Context, c *call) (result, error) {
	plaintext, err := c.params.Binary("Plaintext")
	if err != nil {
		return result{}, err
	}
	defer clear(plaintext)
	encryptionContext, err := c.params.Context("EncryptionContext")
	if err != nil {
		return result{}, err
	}
	key := c.refer("KeyId")
	answer, err := c.core.Encrypt(ctx, c.from, key.Key, key.Region, plaintext, encryptionContext)
	if err != nil {
		return result{}, c.discreet(err)
	}
	return result{ciphertext(answer), answer.RequestID}, nil
}

// decrypt names no key, as in KMS. Whose key it takes is what the core asks.
func decrypt(ctx context.Context, c *call) (result, error) {
	encryptionContext, err := c.params.Context("EncryptionContext")
	if err != nil {
		return result{}, err
	}
	answer, err := c.core.Decrypt(ctx, c.from, "", c.region, c.params["CiphertextBlob"], encryptionContext)
	if err != nil {
		return result{}, err
	}
	defer clear(answer.Plaintext)
	return result{wire.Plaintext{
		KeyID: answer.KeyID, KeyVersionID: answer.KeyVersionID, Plaintext: base64.StdEncoding.EncodeToString(answer.Plaintext),
	}, answer.RequestID}, nil
}

// reEncrypt has a context for each of its halves.
func reEncrypt(ctx context.Context, c *call) (result, error) {
	source, err := c.params.Context("SourceEncryptionContext")
	if err != nil {
		return result{}, err
	}
	destination, err := c.params.Context("DestinationEncryptionContext")
	if err != nil {
		return result{}, err
	}
	key := c.refer("DestinationKeyId")
	answer, err := c.core.ReEncrypt(ctx, c.from, broker.ReEncryption{
		CiphertextBlob: c.params["CiphertextBlob"], SourceContext: source, SourceRegion: c.region,
		Key: key.Key, Context: destination, Region: key.Region,
	})
	if err != nil {
		return result{}, c.discreet(err)
	}
	return result{ciphertext(&answer.Encrypted), answer.RequestID}, nil
}

func generate(withPlaintext bool) func(context.Context, *call) (result, error) {
	return func(ctx context.Context, c *call) (result, error) {
		size, err := c.params.DataKeySize()
		if err != nil {
			return result{}, err
		}
		encryptionContext, err := c.params.Context("EncryptionContext")
		if err != nil {
			return result{}, err
		}
		key := c.refer("KeyId")
		answer, err := c.core.GenerateDataKey(ctx, c.from, key.Key, key.Region, size, encryptionContext, withPlaintext)
		if err != nil {
			return result{}, c.discreet(err)
		}
		defer clear(answer.Plaintext)
		sealed := ciphertext(&answer.Encrypted)
		if !withPlaintext {
			return result{sealed, answer.RequestID}, nil
		}
		return result{wire.DataKey{Ciphertext: sealed, Plaintext: base64.StdEncoding.EncodeToString(answer.Plaintext)}, answer.RequestID}, nil
	}
}

func ciphertext(answer *broker.Encrypted) wire.Ciphertext {
	return wire.Ciphertext{KeyID: answer.KeyID, KeyVersionID: answer.KeyVersionID, CiphertextBlob: answer.CiphertextBlob}
}
