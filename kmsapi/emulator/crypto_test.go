package emulator_test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

func TestEncryptThroughSDK(t *testing.T) {
	f := start(t, emulator.Config{})
	client := f.client("cn-hangzhou")
	id := f.newKey("Aliyun_KMS")
	f.ok("CreateAlias", params{"KeyId": id, "AliasName": "alias/a"})

	encrypt := func(plaintext string) (string, error) {
		r := kms.CreateEncryptRequest()
		r.KeyId, r.Plaintext, r.EncryptionContext = "alias/a", b64(plaintext), `{"b":"2", "a":"1"}`
		answer, err := client.Encrypt(r)
		if err != nil {
			return "", err
		}
		if answer.KeyId != id {
			t.Errorf("Encrypt answered with key %s, want %s", answer.KeyId, id)
		}
		return answer.CiphertextBlob, nil
	}
	decrypt := func(blob, context string) (string, error) {
		r := kms.CreateDecryptRequest()
		r.CiphertextBlob, r.EncryptionContext = blob, context
		answer, err := client.Decrypt(r)
		if err != nil {
			return "", err
		}
		return answer.Plaintext, nil
	}
	largest := strings.Repeat("p", 6144)
	blob, err := encrypt(largest)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decrypt(blob, `{"a":"1","b":"2"}`); err != nil || got != b64(largest) {
		t.Errorf("in another order of keys: %v", err)
	}
	_, err = encrypt(largest + "p")
	checkSDK(t, err, 400, "InvalidParameter")

	raw, err := base64.StdEncoding.DecodeString(blob)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte{}, raw...)
	flipped[len(flipped)-1] ^= 1
	foreign := append([]byte("00000000-0000-4000-8000-000000000000"), raw[36:]...)
	elsewhere := f.client("cn-shanghai")
	for name, try := range map[string]func() (string, error){
		"wrong context":   func() (string, error) { return decrypt(blob, `{"a":"1","b":"3"}`) },
		"less context":    func() (string, error) { return decrypt(blob, `{"a":"1"}`) },
		"no context":      func() (string, error) { return decrypt(blob, "") },
		"list context":    func() (string, error) { return decrypt(blob, `["a"]`) },
		"number context":  func() (string, error) { return decrypt(blob, `{"a":1,"b":"2"}`) },
		"flipped bit":     func() (string, error) { return decrypt(b64(flipped), `{"a":"1","b":"2"}`) },
		"truncated":       func() (string, error) { return decrypt(b64(raw[:40]), `{"a":"1","b":"2"}`) },
		"version alone":   func() (string, error) { return decrypt(b64(raw[:36]), `{"a":"1","b":"2"}`) },
		"foreign version": func() (string, error) { return decrypt(b64(foreign), `{"a":"1","b":"2"}`) },
		"not base64":      func() (string, error) { return decrypt("*"+blob, `{"a":"1","b":"2"}`) },
		"line break":      func() (string, error) { return decrypt(blob[:76]+"\n"+blob[76:], `{"a":"1","b":"2"}`) },
		"another region": func() (string, error) {
			r := kms.CreateDecryptRequest()
			r.CiphertextBlob, r.EncryptionContext = blob, `{"a":"1","b":"2"}`
			_, err := elsewhere.Decrypt(r)
			return "", err
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := try()
			checkSDK(t, err, 400, "InvalidParameter")
		})
	}
}

// TestCiphertextFormat opens a ciphertext with nothing but the imported material
// and the documented layout.
func TestCiphertextFormat(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.importedKey()
	sealed := f.ok("Encrypt", params{"KeyId": id, "Plaintext": b64("hello")})
	raw, err := base64.StdEncoding.DecodeString(sealed.text("CiphertextBlob"))
	if err != nil {
		t.Fatal(err)
	}
	version := raw[:36]
	if string(version) != sealed.text("KeyVersionId") {
		t.Errorf("the blob begins with %q", version)
	}
	block, err := aes.NewCipher(material(32))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := gcm.Open(nil, raw[36:48], raw[48:], version)
	if err != nil || string(plain) != "hello" {
		t.Errorf("got %q, %v", plain, err)
	}
}

func TestEqualMaterialIsNotEqualKeys(t *testing.T) {
	f := start(t, emulator.Config{})
	first, second := f.importedKey(), f.importedKey()
	raw, err := base64.StdEncoding.DecodeString(f.encrypt(first, "x"))
	if err != nil {
		t.Fatal(err)
	}
	version := f.ok("DescribeKey", params{"KeyId": second}).text("KeyMetadata", "PrimaryKeyVersion")
	f.refused(400, "InvalidParameter", "Decrypt", params{"CiphertextBlob": b64(append([]byte(version), raw[36:]...))})
}

func TestDataKeys(t *testing.T) {
	f := start(t, emulator.Config{})
	client := f.client("cn-hangzhou")
	id := f.newKey("Aliyun_KMS")
	for _, tt := range []struct {
		spec  string
		bytes string
		want  int
	}{{"", "", 32}, {"AES_256", "", 32}, {"AES_128", "", 16}, {"AES_128", "1", 1}, {"", "1024", 1024}} {
		r := kms.CreateGenerateDataKeyRequest()
		r.KeyId, r.KeySpec, r.NumberOfBytes = id, tt.spec, requests.Integer(tt.bytes)
		answer, err := client.GenerateDataKey(r)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := base64.StdEncoding.DecodeString(answer.Plaintext)
		if err != nil || len(plain) != tt.want {
			t.Errorf("%q %q gave %d bytes, want %d", tt.spec, tt.bytes, len(plain), tt.want)
		}
		if got := f.ok("Decrypt", params{"CiphertextBlob": answer.CiphertextBlob}).text("Plaintext"); got != answer.Plaintext {
			t.Error("the ciphertext holds another data key")
		}
	}
	for _, p := range []params{{"NumberOfBytes": "0"}, {"NumberOfBytes": "1025"}, {"NumberOfBytes": "x"}, {"KeySpec": "AES_192"}} {
		p["KeyId"] = id
		f.refused(400, "InvalidParameter", "GenerateDataKey", p)
	}
	secret := f.ok("GenerateDataKeyWithoutPlaintext", params{"KeyId": id})
	if _, ok := secret.body["Plaintext"]; ok || secret.text("CiphertextBlob") == "" {
		t.Errorf("got fields %v", secret.body)
	}
}

func TestReEncrypt(t *testing.T) {
	f := start(t, emulator.Config{})
	from, to := f.newKey("Aliyun_KMS"), f.newKey("Aliyun_KMS")
	f.ok("CreateAlias", params{"KeyId": to, "AliasName": "alias/to"})
	blob := f.ok("Encrypt", params{"KeyId": from, "Plaintext": b64("x"), "EncryptionContext": `{"a":"1"}`}).text("CiphertextBlob")
	p := params{"CiphertextBlob": blob, "SourceEncryptionContext": `{"a":"1"}`, "DestinationKeyId": to, "DestinationEncryptionContext": `{"b":"2"}`}
	moved := f.ok("ReEncrypt", p)
	if moved.text("KeyId") != to {
		t.Errorf("ReEncrypt answered with key %s, want %s", moved.text("KeyId"), to)
	}
	plain := f.ok("Decrypt", params{"CiphertextBlob": moved.text("CiphertextBlob"), "EncryptionContext": `{"b":"2"}`})
	if plain.text("Plaintext") != b64("x") || plain.text("KeyId") != to {
		t.Errorf("got %v", plain.body)
	}
	p["DestinationKeyId"] = "alias/to"
	f.refused(400, "Unsupported.Alias", "ReEncrypt", p)
	p["DestinationKeyId"] = to
	f.ok("DisableKey", params{"KeyId": to})
	f.refused(409, "Rejected.Disabled", "ReEncrypt", p)
}

func TestDryRun(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.newKey("Aliyun_KMS")
	blob := f.encrypt(id, "x")
	for action, p := range map[string]params{
		"Encrypt": {"KeyId": id, "Plaintext": "eA=="}, "Decrypt": {"CiphertextBlob": blob},
		"GenerateDataKey": {"KeyId": id}, "GenerateDataKeyWithoutPlaintext": {"KeyId": id},
		"ReEncrypt": {"CiphertextBlob": blob, "DestinationKeyId": id},
	} {
		p["DryRun"] = "false"
		f.ok(action, p)
		p["DryRun"] = "true"
		if a := f.refused(400, "DryRunOperationError", action, p); a.body["Plaintext"] != nil || a.body["CiphertextBlob"] != nil {
			t.Errorf("%s answered %v", action, a.body)
		}
	}
	f.refused(400, "ValidationError", "Encrypt", params{"KeyId": id, "Plaintext": "*", "DryRun": "true"})
	f.refused(400, "ValidationError", "Encrypt", params{"KeyId": id, "DryRun": "true"})
	f.refused(404, "Forbidden.KeyNotFound", "Encrypt", params{"KeyId": "none", "Plaintext": "eA==", "DryRun": "true"})
	f.refused(400, "InvalidParameter", "Encrypt", params{"KeyId": id, "Plaintext": "eA==", "DryRun": "maybe"})
}

func TestEncryptParameters(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.newKey("Aliyun_KMS")
	long := `{"a":"` + strings.Repeat("é", 8192-8) + `"}`
	f.ok("Encrypt", params{"KeyId": id, "Plaintext": "eA==", "EncryptionContext": long})
	for name, p := range map[string]params{
		"unpadded":         {"Plaintext": "eA"},
		"stray bits":       {"Plaintext": "eB=="},
		"URL alphabet":     {"Plaintext": "-_-_"},
		"long context":     {"Plaintext": "eA==", "EncryptionContext": strings.Replace(long, "é", "éé", 1)},
		"nested context":   {"Plaintext": "eA==", "EncryptionContext": `{"a":{"b":"c"}}`},
		"null in context":  {"Plaintext": "eA==", "EncryptionContext": `{"a":null}`},
		"twice in context": {"Plaintext": "eA==", "EncryptionContext": `{"a":"1","a":"1"}`},
		"two contexts":     {"Plaintext": "eA==", "EncryptionContext": `{"a":"1"}{"b":"2"}`},
		"open context":     {"Plaintext": "eA==", "EncryptionContext": `{"a":"1"`},
	} {
		t.Run(name, func(*testing.T) {
			p["KeyId"] = id
			f.refused(400, "InvalidParameter", "Encrypt", p)
		})
	}
	f.refused(400, "MissingParameter", "Encrypt", params{"KeyId": id})
	f.refused(404, "Forbidden.KeyNotFound", "Encrypt", params{"KeyId": "none", "Plaintext": "eA=="})
	f.refused(404, "Forbidden.KeyNotFound", "Encrypt", params{"KeyId": "acs:kms:cn-shanghai:1000000000000001:key/" + id, "Plaintext": "eA=="})
	f.refused(404, "Forbidden.AliasNotFound", "Encrypt", params{"KeyId": "alias/none", "Plaintext": "eA=="})
	// An empty context and none are the same.
	blob := f.ok("Encrypt", params{"KeyId": id, "Plaintext": "eA==", "EncryptionContext": "{}"}).text("CiphertextBlob")
	f.ok("Decrypt", params{"CiphertextBlob": blob})
}
