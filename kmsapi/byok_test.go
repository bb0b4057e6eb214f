package kmsapi_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

// newEmulator starts a KMS over TLS and returns a client of it.
func newEmulator(t *testing.T) kmsapi.KMS {
	t.Helper()
	const id, secret = "LTAItest", "secret"
	kms, err := emulator.New(emulator.Config{Regions: []string{"cn-hangzhou"}, AccessKeyID: id, AccessKeySecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kms.Close(); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewTLSServer(kms)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client, err := kmsapi.NewClient(kmsapi.ClientConfig{
		Region: "cn-hangzhou", Endpoint: server.URL, RootCAs: roots,
		Credentials: kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: id, AccessKeySecret: secret}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func wrap(t *testing.T, spki, material []byte) []byte {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), material, nil)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

// done fails the test unless an operation was acknowledged.
func done(t *testing.T) func(kmsapi.Ack, error) {
	return func(ack kmsapi.Ack, err error) {
		t.Helper()
		if err != nil || ack.RequestID == "" {
			t.Fatalf("got %+v, %v", ack, err)
		}
	}
}

// refused fails the test unless an operation was refused with code.
func refused(t *testing.T, code string, err error) {
	t.Helper()
	if e, ok := errors.AsType[*kmsapi.Error](err); !ok || e.Code != code || e.RequestID == "" {
		t.Fatalf("got %v, want %s", err, code)
	}
}

// TestBringYourOwnKey lives the whole life of a key through all operations.
func TestBringYourOwnKey(t *testing.T) {
	kms, ctx := newEmulator(t), t.Context()
	expectState := func(id string, want kmsapi.KeyState) *kmsapi.KeyMetadata {
		t.Helper()
		key, err := kms.DescribeKey(ctx, id)
		if err != nil || key.State != want {
			t.Fatalf("got %+v, %v, want state %s", key, err, want)
		}
		return key
	}

	tags := []kmsapi.Tag{{Key: "broker-instance-id", Value: "b-1"}, {Key: "import-id", Value: "i-1"}}
	key, err := kms.CreateKey(ctx, kmsapi.CreateKeyRequest{
		Origin: kmsapi.OriginExternal, KeySpec: kmsapi.KeySpecAES256, KeyUsage: kmsapi.UsageEncrypt, Description: "payments & more", Tags: tags,
	})
	if err != nil {
		t.Fatal(err)
	}
	id := key.KeyID
	if key.State != kmsapi.PendingImport || key.Origin != kmsapi.OriginExternal || key.Description != "payments & more" {
		t.Errorf("created %+v", key)
	}
	if found, err := kms.ListTagResources(ctx, kmsapi.ListTagResourcesRequest{Tags: tags}); err != nil || !slices.Equal(found.KeyIDs, []string{id}) {
		t.Errorf("by its tags: %+v, %v", found, err)
	}
	if list, err := kms.ListKeys(ctx, kmsapi.Page{Number: 1, Size: 100}); err != nil || list.Total != 1 || list.Keys[0].KeyID != id || list.Keys[0].ARN != key.ARN {
		t.Errorf("in the list: %+v, %v", list, err)
	}

	material := bytes.Repeat([]byte{0x5a}, 32)
	load := func(material []byte, expiry time.Time) (kmsapi.Ack, error) {
		t.Helper()
		params, err := kms.GetParametersForImport(ctx, kmsapi.ImportParametersRequest{
			KeyID: id, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: kmsapi.WrappingRSA2048,
		})
		if err != nil {
			t.Fatal(err)
		}
		return kms.ImportKeyMaterial(ctx, kmsapi.ImportKeyMaterialRequest{
			KeyID: id, EncryptedKeyMaterial: wrap(t, params.PublicKey, material), ImportToken: params.ImportToken, ExpiresAt: expiry,
		})
	}
	expiry := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	done(t)(load(material, expiry))
	if key := expectState(id, kmsapi.Enabled); !key.MaterialExpireTime.Equal(expiry) {
		t.Errorf("expires at %v, want %v", key.MaterialExpireTime, expiry)
	}
	done(t)(load(material, time.Time{}))
	if key := expectState(id, kmsapi.Enabled); !key.MaterialExpireTime.IsZero() {
		t.Errorf("expires at %v, want never", key.MaterialExpireTime)
	}
	_, err = load(make([]byte, 32), time.Time{})
	refused(t, kmsapi.CodeInvalidKeyMaterial, err)

	const alias = kmsapi.AliasPrefix + "payments"
	done(t)(kms.CreateAlias(ctx, id, alias))
	_, err = kms.CreateAlias(ctx, id, alias)
	refused(t, kmsapi.CodeAliasExists, err)
	done(t)(kms.UpdateAlias(ctx, id, alias))
	if list, err := kms.ListAliases(ctx, kmsapi.Page{}); err != nil || list.Total != 1 || list.Aliases[0].Name != alias || list.Aliases[0].KeyID != id {
		t.Errorf("aliases %+v, %v", list, err)
	}

	if list, err := kms.ListAliasesByKeyID(ctx, id, kmsapi.Page{}); err != nil || list.Total != 1 || list.Aliases[0].Name != alias {
		t.Errorf("aliases of the key %+v, %v", list, err)
	}

	done(t)(kms.TagKey(ctx, id, []kmsapi.Tag{{Key: "import-id", Value: "i-2"}, {Key: "team", Value: "payments"}}))
	done(t)(kms.UntagKey(ctx, id, []string{"broker-instance-id", "none such"}))
	if tags, err := kms.KeyTags(ctx, id); err != nil || !slices.Equal(tags, []kmsapi.Tag{{Key: "import-id", Value: "i-2"}, {Key: "team", Value: "payments"}}) {
		t.Errorf("tags %+v, %v", tags, err)
	}
	done(t)(kms.UpdateKeyDescription(ctx, id, ""))
	done(t)(kms.SetDeletionProtection(ctx, key.ARN, true, "in use"))
	if key := expectState(id, kmsapi.Enabled); key.Description != "" || key.DeletionProtection != "Enabled" {
		t.Errorf("described and protected: %+v", key)
	}
	_, err = kms.ScheduleKeyDeletion(ctx, id, 7)
	refused(t, kmsapi.CodeStateModified, err)
	done(t)(kms.SetDeletionProtection(ctx, key.ARN, false, ""))

	plaintext := []byte("4111 1111 1111 1111 *~+/&=")
	context := map[string]string{"tenant": "ü<1>", "empty": ""}
	sealed, err := kms.Encrypt(ctx, kmsapi.EncryptRequest{KeyID: alias, Plaintext: plaintext, Context: context})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := kms.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: sealed.CiphertextBlob, Context: context})
	if err != nil || !bytes.Equal(opened.Plaintext, plaintext) || opened.KeyID != id || sealed.KeyID != id {
		t.Errorf("decrypted %+v, %v", opened, err)
	}
	_, err = kms.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: sealed.CiphertextBlob})
	refused(t, kmsapi.CodeInvalidParameter, err)
	for _, bytesWanted := range []int{0, 1, kmsapi.MaxDataKey} {
		dataKey, err := kms.GenerateDataKey(ctx, kmsapi.DataKeyRequest{KeyID: id, Bytes: bytesWanted, Context: context})
		if err != nil {
			t.Fatal(err)
		}
		opened, err := kms.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: dataKey.CiphertextBlob, Context: context})
		if err != nil || !bytes.Equal(opened.Plaintext, dataKey.Plaintext) {
			t.Errorf("a data key of %d bytes: %v", bytesWanted, err)
		}
	}
	if dataKey, err := kms.GenerateDataKeyWithoutPlaintext(ctx, kmsapi.DataKeyRequest{KeyID: id}); err != nil || dataKey.Plaintext != nil {
		t.Errorf("without plaintext: %+v, %v", dataKey, err)
	}

	done(t)(kms.DisableKey(ctx, id))
	expectState(id, kmsapi.Disabled)
	_, err = kms.Encrypt(ctx, kmsapi.EncryptRequest{KeyID: id, Plaintext: plaintext})
	refused(t, kmsapi.CodeDisabled, err)
	done(t)(kms.EnableKey(ctx, id))
	done(t)(kms.DeleteKeyMaterial(ctx, id))
	expectState(id, kmsapi.PendingImport)
	done(t)(load(material, time.Time{}))
	done(t)(kms.ScheduleKeyDeletion(ctx, id, 7))
	if key := expectState(id, kmsapi.PendingDeletion); key.DeleteAt.Before(time.Now().AddDate(0, 0, 6)) {
		t.Errorf("deleted at %v", key.DeleteAt)
	}
	done(t)(kms.CancelKeyDeletion(ctx, id))
	expectState(id, kmsapi.Enabled)
	done(t)(kms.DeleteAlias(ctx, alias))
	_, err = kms.DescribeKey(ctx, alias)
	refused(t, kmsapi.CodeAliasNotFound, err)
}

// TestWrongSecret: the emulator, as the service does, quotes the string to sign.
func TestWrongSecret(t *testing.T) {
	server, err := emulator.New(emulator.Config{Regions: []string{"cn-hangzhou"}, AccessKeyID: "LTAItest", AccessKeySecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	listener := httptest.NewServer(server)
	defer listener.Close()
	client, err := kmsapi.NewClient(kmsapi.ClientConfig{
		Region: "cn-hangzhou", Endpoint: listener.URL,
		Credentials: kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: "LTAItest", AccessKeySecret: "wrong"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: "k", Plaintext: []byte("plaintext of the caller")})
	refused(t, "SignatureDoesNotMatch", err)
	if e, _ := errors.AsType[*kmsapi.Error](err); len(e.Message) > 120 {
		t.Errorf("the message is %q", e.Message)
	}
}
