package emulator_test

import (
	"net/http/httptest"
	"testing"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

const (
	instanceID      = "kst-hzz1"
	otherInstanceID = "kst-hzz2"
)

// gateway is the fixture at the dedicated gateway of an instance.
func (f *fixture) gateway(id string) *fixture {
	f.t.Helper()
	web := httptest.NewServer(f.server.Gateway(id))
	f.t.Cleanup(web.Close)
	other := *f
	other.host = web.Listener.Addr().String()
	return &other
}

func startInstances(t *testing.T) *fixture {
	t.Helper()
	return start(t, emulator.Config{Instances: []string{instanceID, otherInstanceID}})
}

func (f *fixture) newInstanceKey(id string) string {
	f.t.Helper()
	return f.ok("CreateKey", params{"Origin": "Aliyun_KMS", "DKMSInstanceId": id}).text("KeyMetadata", "KeyId")
}

func TestKeysOfInstances(t *testing.T) {
	f := startInstances(t)
	id, plain := f.newInstanceKey(instanceID), f.newKey("Aliyun_KMS")
	if got := f.ok("DescribeKey", params{"KeyId": id}).text("KeyMetadata", "DKMSInstanceId"); got != instanceID {
		t.Errorf("DKMSInstanceId is %q", got)
	}
	for value, want := range map[string]string{instanceID: id, "": plain} {
		a := f.ok("ListKeys", params{"Filters": `[{"Key":"DKMSInstanceId","Values":["` + value + `"]}]`})
		keys := a.list("Keys", "Key")
		if len(keys) != 1 || keys[0].(map[string]any)["KeyId"] != want {
			t.Errorf("keys of %q: %v, want %s", value, keys, want)
		}
	}
	f.refused(403, "Forbidden.DKMSInstanceNotFound", "CreateKey", params{"DKMSInstanceId": "kst-hzz3"})
	// An instance is in one region.
	f.refused(403, "Forbidden.DKMSInstanceNotFound", "CreateKey", params{"DKMSInstanceId": instanceID, "RegionId": "cn-shanghai"})
}

// TestGateway: the keys of an instance work through its own gateway alone, which
// speaks nothing but cryptographic operations.
func TestGateway(t *testing.T) {
	f := startInstances(t)
	id, plain := f.newInstanceKey(instanceID), f.newKey("Aliyun_KMS")
	f.ok("CreateAlias", params{"KeyId": id, "AliasName": "alias/here"})
	own, other := f.gateway(instanceID), f.gateway(otherInstanceID)

	blob := own.encrypt("alias/here", "x")
	for _, action := range []string{"GenerateDataKey", "GenerateDataKeyWithoutPlaintext"} {
		own.ok(action, params{"KeyId": id})
	}
	if got := own.ok("Decrypt", params{"CiphertextBlob": blob, "RegionId": "cn-shanghai"}).text("Plaintext"); got != b64("x") {
		t.Errorf("decrypted %q", got)
	}
	f.refused(403, "Forbidden.NoPermission", "Encrypt", params{"KeyId": id, "Plaintext": b64("x")})
	f.refused(403, "Forbidden.NoPermission", "Decrypt", params{"CiphertextBlob": blob})
	f.refused(403, "Forbidden.NoPermission", "ReEncrypt", params{"CiphertextBlob": f.encrypt(plain, "x"), "DestinationKeyId": id})

	for _, foreign := range []string{plain, f.newInstanceKey(otherInstanceID)} {
		own.refused(404, "Forbidden.KeyNotFound", "Encrypt", params{"KeyId": foreign, "Plaintext": b64("x")})
	}
	own.refused(400, "InvalidParameter", "Decrypt", params{"CiphertextBlob": f.encrypt(plain, "x")})
	other.refused(400, "InvalidParameter", "Decrypt", params{"CiphertextBlob": blob})

	own.refused(400, "UnsupportedOperation", "ReEncrypt", params{"CiphertextBlob": blob, "DestinationKeyId": id})
	own.refused(400, "UnsupportedOperation", "DescribeKey", params{"KeyId": id})
	own.refused(400, "UnsupportedOperation", "CreateKey", nil)
	if a := own.tryService(stsVersion, "GetCallerIdentity", nil); a.code() != "UnsupportedOperation" {
		t.Errorf("STS at a gateway answered %v", a.body)
	}

	// RAM decides here as well.
	use := f.newUser("use", `{"Effect":"Allow","Action":"kms:Decrypt","Resource":"acs:kms:cn-hangzhou:1000000000000001:key/`+id+`"}`)
	own.as(use).ok("Decrypt", params{"CiphertextBlob": blob})
	own.as(use).refused(403, "Forbidden.NoPermission", "Encrypt", params{"KeyId": id, "Plaintext": b64("x")})
	own.as(caller{id: rootID, secret: "wrong"}).refused(400, "SignatureDoesNotMatch", "Decrypt", params{"CiphertextBlob": blob})
}

// TestImportIntoInstance goes through the shared gateway, and not with SHA-1.
func TestImportIntoInstance(t *testing.T) {
	f := startInstances(t)
	id := f.ok("CreateKey", params{"Origin": "EXTERNAL", "DKMSInstanceId": instanceID}).text("KeyMetadata", "KeyId")
	ask := func(algorithm string) params {
		return params{"KeyId": id, "WrappingAlgorithm": algorithm, "WrappingKeySpec": "RSA_2048"}
	}
	f.refused(400, "InvalidParameter", "GetParametersForImport", ask("RSAES_OAEP_SHA_1"))
	f.ok("GetParametersForImport", ask("RSAES_PKCS1_V1_5"))
	f.ok("GetParametersForImport", ask("RSAES_OAEP_SHA_256"))
	f.gateway(instanceID).refused(409, "Rejected.PendingImport", "Encrypt", params{"KeyId": id, "Plaintext": b64("x")})
}

// TestGatewayHasNoQuota: an instance does what it can.
func TestGatewayHasNoQuota(t *testing.T) {
	f := start(t, emulator.Config{Instances: []string{instanceID}, Quota: true})
	own := f.gateway(instanceID)
	client := own.client("cn-hangzhou")
	ask := kms.CreateEncryptRequest()
	ask.KeyId, ask.Plaintext = f.newInstanceKey(instanceID), "eA=="
	for range 1100 {
		if _, err := client.Encrypt(ask); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInstanceOutlivesRestart finds a key in its instance again.
func TestInstanceOutlivesRestart(t *testing.T) {
	dir := t.TempDir()
	config := emulator.Config{
		Regions: []string{"cn-hangzhou"}, Instances: []string{instanceID}, StateDir: dir, AccessKeyID: rootID, AccessKeySecret: rootSecret,
	}
	f := start(t, config)
	id := f.newInstanceKey(instanceID)
	if err := f.server.Close(); err != nil {
		t.Fatal(err)
	}
	f = start(t, config)
	f.gateway(instanceID).encrypt(id, "x")
}

func TestBadInstances(t *testing.T) {
	for _, ids := range [][]string{{""}, {"Kst"}, {"a", "a"}, {"a.b"}} {
		_, err := emulator.New(emulator.Config{Regions: []string{"r"}, Instances: ids, AccessKeyID: "a", AccessKeySecret: "b"})
		if err == nil {
			t.Errorf("instances %q are accepted", ids)
		}
	}
}
