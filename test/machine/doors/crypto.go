//go:build root

package main

import (
	"bytes"
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/envelope"
)

// crypto is kms.sock.
type crypto struct{ v1.CryptoClient }

func newCrypto() (crypto, error) {
	conn, err := client.Dial(client.DefaultSocket)
	if err != nil {
		return crypto{}, err
	}
	return crypto{v1.NewCryptoClient(conn)}, nil
}

const application = "application"

func (c crypto) ways(op string) []way {
	return map[string][]way{
		"encrypt": {
			{application, "Encrypt", c.encrypt}, {application, "EncryptBatch", c.encryptBatch}, {application, "Seal", c.seal},
			{application, "CreateMessageKey", c.messageKey},
		},
		"decrypt": {
			{application, "Decrypt", c.decrypt}, {application, "DecryptBatch", c.decryptBatch}, {application, "Open", c.open},
			{application, "GetMessageKey", c.openingKey},
		},
		"generate-data-key":                   {{application, "GenerateDataKey", c.dataKey}},
		"generate-data-key-without-plaintext": {{application, "GenerateDataKeyWithoutPlaintext", c.hiddenDataKey}},
		"steal": {
			{application, "Decrypt", c.stealing(nil)}, {application, "Decrypt, reserved context", c.stealing(reserved)},
			{application, "ReEncrypt", c.moving(nil)}, {application, "ReEncrypt, reserved context", c.moving(reserved)},
			{application, "Open, reserved context", c.stealingSeed},
		},
	}[op]
}

// reserved makes the encryption contexts that data keys and seeds have at KMS.
func reserved(purpose string, t *task) map[string]string {
	c := map[string]string{"kmsbroker.purpose": purpose, "kmsbroker.key": t.Key}
	if purpose == "kubernetes" {
		c["kmsbroker.provider"] = t.Key
	}
	return c
}

func same(got []byte, err error) error {
	if err == nil && !bytes.Equal(got, plaintext) {
		return errPlaintext
	}
	return err
}

func (c crypto) encrypt(ctx context.Context, t *task) error {
	_, err := c.Encrypt(ctx, &v1.EncryptRequest{Key: t.Key, Plaintext: plaintext, EncryptionContext: t.Context})
	return err
}

func (c crypto) encryptBatch(ctx context.Context, t *task) error {
	item := &v1.EncryptRequest{Key: t.Key, Plaintext: plaintext, EncryptionContext: t.Context}
	answer, err := c.EncryptBatch(ctx, &v1.EncryptBatchRequest{Items: []*v1.EncryptRequest{item}})
	if err != nil {
		return err
	}
	return failed(answer.GetItems()[0].GetFailed())
}

func failed(f *v1.Failure) error {
	if f == nil {
		return nil
	}
	return status.Error(codes.Code(f.GetCode()), f.GetMessage())
}

func (c crypto) seal(ctx context.Context, t *task) error {
	_, err := c.Seal(ctx, &v1.SealRequest{Key: t.Key, Plaintext: plaintext, EncryptionContext: t.Context})
	return err
}

func (c crypto) messageKey(ctx context.Context, t *task) error {
	_, err := c.CreateMessageKey(ctx, &v1.CreateMessageKeyRequest{Key: t.Key, EncryptionContext: t.Context})
	return err
}

func (c crypto) decrypt(ctx context.Context, t *task) error {
	answer, err := c.Decrypt(ctx, &v1.DecryptRequest{CiphertextBlob: t.Sealed.Blob, EncryptionContext: t.Context})
	return same(answer.GetPlaintext(), err)
}

func (c crypto) decryptBatch(ctx context.Context, t *task) error {
	item := &v1.DecryptRequest{CiphertextBlob: t.Sealed.Blob, EncryptionContext: t.Context}
	answer, err := c.DecryptBatch(ctx, &v1.DecryptBatchRequest{Items: []*v1.DecryptRequest{item}})
	if err != nil {
		return err
	}
	only := answer.GetItems()[0]
	return same(only.GetDone().GetPlaintext(), failed(only.GetFailed()))
}

func (c crypto) open(ctx context.Context, t *task) error {
	answer, err := c.Open(ctx, &v1.OpenRequest{Message: t.Sealed.Message, EncryptionContext: t.Context})
	return same(answer.GetPlaintext(), err)
}

func (c crypto) openingKey(ctx context.Context, t *task) error {
	header, segments, err := envelope.Split(t.Sealed.Message)
	if err != nil {
		return err
	}
	answer, err := c.GetMessageKey(ctx, &v1.GetMessageKeyRequest{Header: header, EncryptionContext: t.Context})
	if err != nil {
		return err
	}
	message, err := envelope.WithMessageKey(header, answer.GetMessageKey(), t.Context)
	if err != nil {
		return err
	}
	return same(message.Open(segments))
}

func (c crypto) dataKey(ctx context.Context, t *task) error {
	_, err := c.GenerateDataKey(ctx, &v1.GenerateDataKeyRequest{Key: t.Key, EncryptionContext: t.Context})
	return err
}

func (c crypto) hiddenDataKey(ctx context.Context, t *task) error {
	_, err := c.GenerateDataKeyWithoutPlaintext(ctx, &v1.GenerateDataKeyRequest{Key: t.Key, EncryptionContext: t.Context})
	return err
}

// stealing gives a data key and a seed for ciphertexts.
func (c crypto) stealing(in func(string, *task) map[string]string) func(context.Context, *task) error {
	return eachStolen(in, func(ctx context.Context, _ *task, blob string, context map[string]string) error {
		_, err := c.Decrypt(ctx, &v1.DecryptRequest{CiphertextBlob: blob, EncryptionContext: context})
		return err
	})
}

// moving has them encrypted anew in a context that anybody may name.
func (c crypto) moving(in func(string, *task) map[string]string) func(context.Context, *task) error {
	return eachStolen(in, func(ctx context.Context, t *task, blob string, context map[string]string) error {
		_, err := c.ReEncrypt(ctx, &v1.ReEncryptRequest{CiphertextBlob: blob, SourceContext: context, Key: t.Key})
		return err
	})
}

// eachStolen returns nil as soon as one attempt succeeds, and else the last refusal.
func eachStolen(in func(string, *task) map[string]string, try func(context.Context, *task, string, map[string]string) error) func(context.Context, *task) error {
	return func(ctx context.Context, t *task) error {
		var refused error
		for purpose, blob := range map[string]string{"envelope": t.Sealed.DataKey, "kubernetes": string(t.Sealed.Seed.Ciphertext)} {
			var context map[string]string
			if in != nil {
				context = in(purpose, t)
			}
			if refused = try(ctx, t, blob, context); refused == nil {
				return nil
			}
		}
		return refused
	}
}

func (c crypto) stealingSeed(ctx context.Context, t *task) error {
	_, err := c.Open(ctx, &v1.OpenRequest{Message: t.Sealed.Message, EncryptionContext: reserved("kubernetes", t)})
	return err
}

func (c crypto) make(ctx context.Context, t *task) (*sealed, error) {
	blob, err := c.Encrypt(ctx, &v1.EncryptRequest{Key: t.Key, Plaintext: plaintext, EncryptionContext: t.Context})
	if err != nil {
		return nil, err
	}
	message, err := c.Seal(ctx, &v1.SealRequest{Key: t.Key, Plaintext: plaintext, EncryptionContext: t.Context})
	if err != nil {
		return nil, err
	}
	raw, _, err := envelope.Split(message.GetMessage())
	if err != nil {
		return nil, err
	}
	header, err := envelope.Parse(raw)
	if err != nil {
		return nil, err
	}
	return &sealed{Blob: blob.GetCiphertextBlob(), KeyID: blob.GetKeyId(), Message: message.GetMessage(), DataKey: header.WrappedKeys[0].CiphertextBlob}, nil
}
