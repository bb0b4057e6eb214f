package emulator_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

// wrapper encrypts key material under a wrapping key.
type wrapper func(pub *rsa.PublicKey, material []byte) ([]byte, error)

func wrapOAEP256(pub *rsa.PublicKey, material []byte) ([]byte, error) {
	return rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, material, nil)
}

func wrapOAEP1(pub *rsa.PublicKey, material []byte) ([]byte, error) {
	return rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, material, nil)
}

func wrapPKCS1(pub *rsa.PublicKey, material []byte) ([]byte, error) {
	return rsa.EncryptPKCS1v15(rand.Reader, pub, material) //nolint:staticcheck // part of the API
}

// wrapMixed is the classic mistake of Java's OAEPWithSHA-256AndMGF1Padding.
func wrapMixed(pub *rsa.PublicKey, material []byte) ([]byte, error) {
	return rsa.EncryptOAEPWithOptions(rand.Reader, pub, material, &rsa.OAEPOptions{Hash: crypto.SHA256, MGFHash: crypto.SHA1})
}

func material(size int) []byte { return bytes.Repeat([]byte{0x5a}, size) }

// wrapped asks for parameters and wraps material under them.
func (f *fixture) wrapped(keyID, algorithm string, wrap wrapper, data []byte) params {
	f.t.Helper()
	a := f.ok("GetParametersForImport", params{"KeyId": keyID, "WrappingAlgorithm": algorithm, "WrappingKeySpec": "RSA_2048"})
	der, err := base64.StdEncoding.DecodeString(a.text("PublicKey"))
	if err != nil {
		f.t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		f.t.Fatal(err)
	}
	blob, err := wrap(pub.(*rsa.PublicKey), data)
	if err != nil {
		f.t.Fatal(err)
	}
	return params{"KeyId": keyID, "ImportToken": a.text("ImportToken"), "EncryptedKeyMaterial": b64(blob)}
}

// importedKey makes a key with imported material.
func (f *fixture) importedKey() string {
	f.t.Helper()
	id := f.newKey("EXTERNAL")
	f.ok("ImportKeyMaterial", f.wrapped(id, "RSAES_OAEP_SHA_256", wrapOAEP256, material(32)))
	return id
}

func TestBringYourOwnKeyThroughSDK(t *testing.T) {
	for algorithm, wrap := range map[string]wrapper{
		"RSAES_OAEP_SHA_256": wrapOAEP256, "RSAES_OAEP_SHA_1": wrapOAEP1, "RSAES_PKCS1_V1_5": wrapPKCS1,
	} {
		t.Run(algorithm, func(t *testing.T) {
			f := start(t, emulator.Config{})
			client := f.client("cn-shanghai")

			create := kms.CreateCreateKeyRequest()
			create.Origin, create.Description, create.ProtectionLevel = "EXTERNAL", "from an HSM", "HSM"
			created, err := client.CreateKey(create)
			if err != nil {
				t.Fatal(err)
			}
			meta := created.KeyMetadata
			if meta.KeyState != "PendingImport" || meta.Origin != "EXTERNAL" || meta.PrimaryKeyVersion != "" ||
				meta.Description != "from an HSM" || meta.KeySpec != "Aliyun_AES_256" || meta.ProtectionLevel != "HSM" {
				t.Fatalf("created %+v", meta)
			}

			ask := kms.CreateGetParametersForImportRequest()
			ask.KeyId, ask.WrappingAlgorithm, ask.WrappingKeySpec = meta.KeyId, algorithm, "RSA_2048"
			given, err := client.GetParametersForImport(ask)
			if err != nil {
				t.Fatal(err)
			}
			if want := f.clock.Now().Add(24 * time.Hour).Format(timeLayout); given.TokenExpireTime != want {
				t.Errorf("TokenExpireTime = %s, want %s", given.TokenExpireTime, want)
			}
			der, err := base64.StdEncoding.DecodeString(given.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := x509.ParsePKIXPublicKey(der)
			if err != nil {
				t.Fatal(err)
			}
			blob, err := wrap(pub.(*rsa.PublicKey), material(32))
			if err != nil {
				t.Fatal(err)
			}

			private, ok := f.server.WrappingKey(given.ImportToken)
			if !ok || !private.PublicKey.Equal(pub) {
				t.Error("the emulator does not give out its wrapping key")
			}

			send := kms.CreateImportKeyMaterialRequest()
			send.KeyId, send.ImportToken, send.EncryptedKeyMaterial = meta.KeyId, given.ImportToken, b64(blob)
			expiry := f.clock.Now().Add(48 * time.Hour)
			send.KeyMaterialExpireUnix = requests.NewInteger64(expiry.Unix())
			if _, err := client.ImportKeyMaterial(send); err != nil {
				t.Fatal(err)
			}

			describe := kms.CreateDescribeKeyRequest()
			describe.KeyId = meta.Arn
			described, err := client.DescribeKey(describe)
			if err != nil {
				t.Fatal(err)
			}
			now := described.KeyMetadata
			if now.KeyState != "Enabled" || now.PrimaryKeyVersion == "" || now.MaterialExpireTime != expiry.Format(timeLayout) || now.DeletionProtection != "Disabled" {
				t.Errorf("after the import %+v", now)
			}

			enc := kms.CreateEncryptRequest()
			enc.KeyId, enc.Plaintext = meta.KeyId, b64("hello")
			sealed, err := client.Encrypt(enc)
			if err != nil {
				t.Fatal(err)
			}
			dec := kms.CreateDecryptRequest()
			dec.CiphertextBlob = sealed.CiphertextBlob
			opened, err := client.Decrypt(dec)
			if err != nil {
				t.Fatal(err)
			}
			if opened.Plaintext != b64("hello") || opened.KeyId != meta.KeyId || opened.KeyVersionId != now.PrimaryKeyVersion {
				t.Errorf("Decrypt answered %+v", opened)
			}
		})
	}
}

func TestWrappingMistakes(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.newKey("EXTERNAL")
	messages := map[string]bool{}
	for name, tt := range map[string]struct {
		algorithm string
		wrap      wrapper
		size      int
	}{
		"SHA-256 with MGF1-SHA1": {"RSAES_OAEP_SHA_256", wrapMixed, 32},
		"SHA-1 for SHA-256":      {"RSAES_OAEP_SHA_256", wrapOAEP1, 32},
		"PKCS #1 for OAEP":       {"RSAES_OAEP_SHA_256", wrapPKCS1, 32},
		"OAEP for PKCS #1":       {"RSAES_PKCS1_V1_5", wrapOAEP256, 32},
		"31 bytes":               {"RSAES_OAEP_SHA_256", wrapOAEP256, 31},
		"33 bytes":               {"RSAES_OAEP_SHA_256", wrapOAEP256, 33},
		"31 bytes, PKCS #1":      {"RSAES_PKCS1_V1_5", wrapPKCS1, 31},
		"not a ciphertext":       {"RSAES_PKCS1_V1_5", func(*rsa.PublicKey, []byte) ([]byte, error) { return material(256), nil }, 32},
		"too short":              {"RSAES_PKCS1_V1_5", func(*rsa.PublicKey, []byte) ([]byte, error) { return material(255), nil }, 32},
	} {
		t.Run(name, func(t *testing.T) {
			p := f.wrapped(id, tt.algorithm, tt.wrap, material(tt.size))
			messages[f.refused(400, "InvalidKeyMaterial", "ImportKeyMaterial", p).text("Message")] = true
			if got := f.keyState(id); got != "PendingImport" {
				t.Errorf("the key is %s afterwards", got)
			}
		})
	}
	if len(messages) != 1 {
		t.Errorf("refusals tell causes apart: %v", messages)
	}
}

func TestMaterialIsForEver(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.newKey("EXTERNAL")
	good := f.wrapped(id, "RSAES_OAEP_SHA_256", wrapOAEP256, material(32))
	other := f.wrapped(id, "RSAES_OAEP_SHA_256", wrapOAEP256, slices.Repeat([]byte{1}, 32))
	good["KeyMaterialExpireUnix"] = fmt.Sprint(f.clock.Now().Add(time.Hour).Unix())

	f.ok("ImportKeyMaterial", good)
	blob := f.encrypt(id, "x")
	version := f.ok("DescribeKey", params{"KeyId": id}).text("KeyMetadata", "PrimaryKeyVersion")
	f.refused(400, "InvalidKeyMaterial", "ImportKeyMaterial", other)

	f.ok("DeleteKeyMaterial", params{"KeyId": id})
	if got := f.keyState(id); got != "PendingImport" {
		t.Errorf("state %s after DeleteKeyMaterial", got)
	}
	f.refused(409, "Rejected.PendingImport", "Decrypt", params{"CiphertextBlob": blob})
	f.refused(400, "InvalidKeyMaterial", "ImportKeyMaterial", other)
	f.ok("ImportKeyMaterial", good)
	f.ok("Decrypt", params{"CiphertextBlob": blob})

	f.clock.advance(time.Hour)
	meta := f.ok("DescribeKey", params{"KeyId": id})
	if state, expiry := meta.text("KeyMetadata", "KeyState"), meta.text("KeyMetadata", "MaterialExpireTime"); state != "PendingImport" || expiry != "" {
		t.Errorf("state %s, expiry %q after the material expired", state, expiry)
	}
	f.refused(409, "Rejected.PendingImport", "Decrypt", params{"CiphertextBlob": blob})
	f.refused(400, "InvalidKeyMaterial", "ImportKeyMaterial", other)
	delete(good, "KeyMaterialExpireUnix")
	f.ok("ImportKeyMaterial", good)
	f.ok("Decrypt", params{"CiphertextBlob": blob})
	if got := f.ok("DescribeKey", params{"KeyId": id}).text("KeyMetadata", "PrimaryKeyVersion"); got != version {
		t.Errorf("version %s became %s", version, got)
	}
}

func TestImportTokens(t *testing.T) {
	f := start(t, emulator.Config{})
	id, neighbour := f.newKey("EXTERNAL"), f.newKey("EXTERNAL")
	p := f.wrapped(id, "RSAES_OAEP_SHA_256", wrapOAEP256, material(32))
	again := f.wrapped(id, "RSAES_OAEP_SHA_256", wrapOAEP256, material(32))
	if p["ImportToken"] == again["ImportToken"] {
		t.Fatal("a second call returned the first token")
	}
	with := func(changes params) params {
		q := maps.Clone(p)
		maps.Copy(q, changes)
		return q
	}
	f.refused(400, "InvalidImportToken", "ImportKeyMaterial", with(params{"ImportToken": b64("foreign")}))
	f.refused(400, "InvalidImportToken", "ImportKeyMaterial", with(params{"KeyId": neighbour}))
	f.refused(400, "InvalidKeyMaterial", "ImportKeyMaterial", with(params{"ImportToken": again["ImportToken"]}))
	f.ok("ImportKeyMaterial", p)
	f.ok("ImportKeyMaterial", p)

	f.clock.advance(24*time.Hour - time.Second)
	f.ok("ImportKeyMaterial", p)
	f.clock.advance(time.Second)
	send := kms.CreateImportKeyMaterialRequest()
	send.KeyId, send.ImportToken, send.EncryptedKeyMaterial = id, p["ImportToken"], p["EncryptedKeyMaterial"]
	_, err := f.client("cn-hangzhou").ImportKeyMaterial(send)
	checkSDK(t, err, 400, "ExpiredImportToken")
	if _, ok := f.server.WrappingKey(p["ImportToken"]); ok {
		t.Error("an expired wrapping key is still given out")
	}
	f.clock.advance(31 * 24 * time.Hour)
	f.refused(400, "InvalidImportToken", "ImportKeyMaterial", p)
}

func TestImportParameters(t *testing.T) {
	f := start(t, emulator.Config{})
	external, own := f.newKey("EXTERNAL"), f.newKey("Aliyun_KMS")
	ask := func(id, algorithm, spec string) params {
		return params{"KeyId": id, "WrappingAlgorithm": algorithm, "WrappingKeySpec": spec}
	}
	f.refused(400, "InvalidParameter", "GetParametersForImport", ask(external, "RSA_AES_KEY_WRAP_SHA_256", "RSA_2048"))
	f.refused(400, "InvalidParameter", "GetParametersForImport", ask(external, "RSAES_OAEP_SHA_256", "RSA_4096"))
	f.refused(400, "MissingParameter", "GetParametersForImport", params{"KeyId": external, "WrappingKeySpec": "RSA_2048"})
	f.refused(400, "Unsupported.Origin", "GetParametersForImport", ask(own, "RSAES_OAEP_SHA_256", "RSA_2048"))
	f.refused(400, "Unsupported.Origin", "DeleteKeyMaterial", params{"KeyId": own})
	f.refused(400, "Unsupported.Origin", "ImportKeyMaterial", params{"KeyId": own, "ImportToken": "x", "EncryptedKeyMaterial": "eA=="})

	p := f.wrapped(external, "RSAES_OAEP_SHA_256", wrapOAEP256, material(32))
	now := f.clock.Now()
	for _, expiry := range []string{"-1", "soon", fmt.Sprint(now.Unix()), fmt.Sprint(now.Add(-time.Hour).Unix()), fmt.Sprint(now.Add(time.Hour).UnixMilli()), "99999999999999999999"} {
		p["KeyMaterialExpireUnix"] = expiry
		f.refused(400, "InvalidParameter", "ImportKeyMaterial", p)
	}
	p["KeyMaterialExpireUnix"] = "0"
	f.ok("ImportKeyMaterial", p)
	if got := f.ok("DescribeKey", params{"KeyId": external}).text("KeyMetadata", "MaterialExpireTime"); got != "" {
		t.Errorf("material that never expires expires at %q", got)
	}
}

func TestImportIntoDisabledKey(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.newKey("EXTERNAL")
	p := f.wrapped(id, "RSAES_OAEP_SHA_256", wrapOAEP256, material(32))
	f.ok("ImportKeyMaterial", p)
	f.ok("DisableKey", params{"KeyId": id})
	f.ok("ImportKeyMaterial", p)
	if got := f.keyState(id); got != "Disabled" {
		t.Errorf("an import made the key %s", got)
	}
}

func TestDeletionMeetsMaterial(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.importedKey()
	f.ok("ScheduleKeyDeletion", params{"KeyId": id, "PendingWindowInDays": "7"})
	f.ok("DeleteKeyMaterial", params{"KeyId": id})
	meta := f.ok("DescribeKey", params{"KeyId": id})
	if want := f.clock.Now().Add(7 * 24 * time.Hour).Format(timeLayout); meta.text("KeyMetadata", "KeyState") != "PendingDeletion" || meta.text("KeyMetadata", "DeleteDate") != want {
		t.Errorf("got %v", meta.body)
	}
	f.ok("CancelKeyDeletion", params{"KeyId": id})
	if got := f.keyState(id); got != "PendingImport" {
		t.Errorf("a key without material came back %s", got)
	}

	f.ok("CreateAlias", params{"KeyId": id, "AliasName": "alias/gone"})
	f.ok("ScheduleKeyDeletion", params{"KeyId": id, "PendingWindowInDays": "7"})
	f.clock.advance(7 * 24 * time.Hour)
	f.refused(404, "Forbidden.KeyNotFound", "DescribeKey", params{"KeyId": id})
	f.refused(404, "Forbidden.AliasNotFound", "DescribeKey", params{"KeyId": "alias/gone"})
	if n := len(f.ok("ListKeys", nil).list("Keys", "Key")); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}
