package emulator_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"hash"
	"maps"
	"sync"
	"testing"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

// recipient is an RSA key under which data keys are exported; making one takes a
// while.
var recipient = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// exporting adds the parameters that say how a data key leaves.
func exporting(t *testing.T, p params) params {
	t.Helper()
	key, err := recipient()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	all := params{"PublicKeyBlob": b64(der), "WrappingKeySpec": "RSA_2048", "WrappingAlgorithm": "RSAES_OAEP_SHA_256"}
	maps.Copy(all, p)
	return all
}

func (f *fixture) unwrapExported(a answer, h func() hash.Hash) []byte {
	f.t.Helper()
	key, err := recipient()
	if err != nil {
		f.t.Fatal(err)
	}
	wrapped, err := base64.StdEncoding.DecodeString(a.text("ExportedDataKey"))
	if err != nil {
		f.t.Fatal(err)
	}
	data, err := rsa.DecryptOAEP(h(), nil, key, wrapped, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

func TestExportDataKey(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.newKey("Aliyun_KMS")
	context := params{"EncryptionContext": `{"tenant":"a"}`}
	with := func(p params) params { q := exporting(t, context); maps.Copy(q, p); return q }

	made := f.ok("GenerateAndExportDataKey", with(params{"KeyId": id, "NumberOfBytes": "24"}))
	first := f.unwrapExported(made, sha256.New)
	if len(first) != 24 {
		t.Errorf("data key of %d bytes", len(first))
	}
	blob := made.text("CiphertextBlob")
	opened := f.ok("Decrypt", params{"CiphertextBlob": blob, "EncryptionContext": context["EncryptionContext"]})
	if opened.text("Plaintext") != b64(first) {
		t.Error("the blob holds another data key")
	}
	again := f.ok("ExportDataKey", with(params{"CiphertextBlob": blob, "WrappingAlgorithm": "RSAES_OAEP_SHA_1"}))
	if !bytes.Equal(f.unwrapExported(again, sha1.New), first) || again.text("KeyId") != id || again.text("KeyVersionId") == "" {
		t.Errorf("exported another data key, or %v", again.body)
	}

	f.refused(400, "InvalidParameter", "ExportDataKey", exporting(t, params{"CiphertextBlob": blob})) // no context
	f.refused(400, "InvalidParameter", "ExportDataKey", with(params{"CiphertextBlob": blob, "PublicKeyBlob": "eA=="}))
	f.refused(400, "InvalidParameter", "ExportDataKey", with(params{"CiphertextBlob": blob, "WrappingAlgorithm": "RSAES_PKCS1_V1_5"}))
	f.refused(400, "UnsupportedOperation", "ExportDataKey", with(params{"CiphertextBlob": blob, "WrappingKeySpec": "EC_SM2", "WrappingAlgorithm": "SM2PKE"}))
	f.refused(400, "InvalidParameter", "GenerateAndExportDataKey", with(params{"KeyId": id, "NumberOfBytes": "191"})) // too long for RSA
	f.refused(400, "DryRunOperationError", "GenerateAndExportDataKey", with(params{"KeyId": id, "DryRun": "true"}))
}
