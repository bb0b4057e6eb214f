package scenario

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// broker is a daemon with the door that speaks Alibaba Cloud's protocol over TCP,
// and the conversation that clients hold with it.
type broker struct {
	*stage.Stage
	address  string
	scenario *Scenario
}

// startBroker has keys app-1 and app-2 that the application web may use, and others
// that it may not.
func startBroker(t *testing.T, tls string) *broker {
	t.Helper()
	b := &broker{Stage: stage.New(t, stage.Options{}), address: freeAddress(t)}
	b.Write("kmsbrokerd.toml", b.Read("kmsbrokerd.toml")+fmt.Sprintf(`
[[grant]]
keys       = ["app-*"]
operations = ["encrypt", "decrypt", "generate-data-key", "generate-data-key-without-plaintext"]
apps       = ["web"]

[alibaba]
listen = %q
%s`, b.address, tls), 0o600)
	b.Start()
	key := b.Import("app-1", "--alias", "alias/first")
	b.Import("app-2")
	vault := b.Import("vault", "--alias", "alias/vault")
	b.Must(b.Ctl(b.Control(), "app", "issue", "web", "--out", b.Path("web.toml")), nil)
	b.Must(b.Ctl(b.Control(), "app", "issue", "old", "--out", b.Path("old.toml")), nil)
	b.Must(b.Ctl(b.Control(), "app", "revoke", "old"), nil)
	foreign, err := b.Client().Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: vault.KeyID, Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	web, old := b.accessKey(t, "web.toml"), b.accessKey(t, "old.toml")
	b.scenario = &Scenario{
		Region: stage.Region,
		Identities: map[string]map[string]string{
			"root":    {"id": web.AccessKeyID, "secret": web.AccessKeySecret},
			"liar":    {"id": web.AccessKeyID, "secret": "another"},
			"revoked": {"id": old.AccessKeyID, "secret": old.AccessKeySecret},
			"broker":  {"id": stage.AccessKeyID, "secret": stage.AccessKeySecret},
		},
		Steps: brokerSteps(key, vault, foreign.CiphertextBlob),
	}
	b.scenario.complete()
	return b
}

func (b *broker) accessKey(t *testing.T, name string) kmsapi.Credentials {
	t.Helper()
	key, err := kmsapi.ParseCredentials([]byte(b.Read(name)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// freeAddress is a loopback address that nobody listens at just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// brokerSteps is what applications do with KMS, and what they must not.
func brokerSteps(key, vault stage.Key, foreign string) []Step {
	plaintext := base64.StdEncoding.EncodeToString([]byte("+/ secret ~*"))
	own, moved := map[string]any{"tenant": "acme & co"}, map[string]any{"tenant": "other"}
	type params = map[string]any
	encrypt := func(id string) Step {
		return Step{Name: "encrypt with " + id, Action: "Encrypt", Params: params{"KeyId": id, "Plaintext": plaintext}, Expect: params{"KeyId": key.KeyID, "RequestId": "*"}}
	}
	refused := func(name, action string, p params, status int, code string) Step {
		return Step{Name: name, Action: action, Params: p, Status: status, Code: code}
	}
	as := func(who string, status int, code string) Step {
		s := refused("as "+who, "Encrypt", params{"KeyId": "app-1", "Plaintext": plaintext}, status, code)
		s.As = who
		return s
	}
	return []Step{
		{
			Name: "encrypt", Action: "Encrypt", Params: params{"KeyId": "app-1", "Plaintext": plaintext, "EncryptionContext": own},
			Expect: params{"KeyId": key.KeyID, "KeyVersionId": "*", "RequestId": "*"}, Capture: map[string]string{"blob": "CiphertextBlob"},
		},
		{
			Name: "decrypt", Action: "Decrypt", Params: params{"CiphertextBlob": "${blob}", "EncryptionContext": own},
			Expect: params{"KeyId": key.KeyID, "Plaintext": plaintext, "KeyVersionId": "*", "RequestId": "*"},
		},
		encrypt(key.KeyID), encrypt(key.ARN), encrypt("alias/first"),
		encrypt(strings.TrimSuffix(key.ARN, "key/"+key.KeyID) + "alias/first"),
		{
			Name: "data key", Action: "GenerateDataKey", Params: params{"KeyId": "alias/first", "NumberOfBytes": float64(16)},
			Expect: params{"KeyId": key.KeyID}, Capture: map[string]string{"data": "Plaintext", "sealed": "CiphertextBlob"},
		},
		{Name: "open data key", Action: "Decrypt", Params: params{"CiphertextBlob": "${sealed}"}, Expect: params{"Plaintext": "${data}"}},
		{
			Name: "data key without plaintext", Action: "GenerateDataKeyWithoutPlaintext", Params: params{"KeyId": "app-1", "KeySpec": "AES_128"},
			Expect: params{"KeyId": key.KeyID, "CiphertextBlob": "*"},
		},
		{
			Name: "re-encrypt", Action: "ReEncrypt", Capture: map[string]string{"blob2": "CiphertextBlob", "key2": "KeyId"},
			Params: params{"CiphertextBlob": "${blob}", "SourceEncryptionContext": own, "DestinationKeyId": "app-2", "DestinationEncryptionContext": moved},
		},
		{
			Name: "decrypt again", Action: "Decrypt", Params: params{"CiphertextBlob": "${blob2}", "EncryptionContext": moved},
			Expect: params{"KeyId": "${key2}", "Plaintext": plaintext},
		},
		{
			Name: "describe", Action: "DescribeKey", Params: params{"KeyId": "alias/first"}, Expect: params{
				"KeyMetadata.KeyId": key.KeyID, "KeyMetadata.Arn": key.ARN, "KeyMetadata.KeyState": "Enabled", "KeyMetadata.Origin": "EXTERNAL",
				"KeyMetadata.KeySpec": "Aliyun_AES_256", "KeyMetadata.AutomaticRotation": "Disabled",
			},
		},
		{
			Name: "list keys", Action: "ListKeys", Params: params{"PageNumber": float64(1), "PageSize": float64(1)},
			Expect: params{"TotalCount": 2.0, "PageSize": 1.0, "Keys.Key.#": 1.0, "Keys.Key.0.KeyId": key.KeyID, "Keys.Key.0.KeyArn": key.ARN},
		},
		{Name: "list aliases", Action: "ListAliases", Params: params{}, Expect: params{
			"TotalCount": 1.0, "Aliases.Alias.#": 1.0, "Aliases.Alias.0.AliasName": "alias/first", "Aliases.Alias.0.KeyId": key.KeyID,
		}},
		{
			Name: "list aliases of a key", Action: "ListAliasesByKeyId", Params: params{"KeyId": key.KeyID},
			Expect: params{"TotalCount": 1.0, "Aliases.Alias.0.AliasName": "alias/first"},
		},

		refused("another context", "Decrypt", params{"CiphertextBlob": "${blob}"}, http.StatusBadRequest, "InvalidParameter"),
		refused("no ciphertext", "Decrypt", params{"CiphertextBlob": "AAAA"}, http.StatusBadRequest, "InvalidParameter"),
		refused("foreign ciphertext", "Decrypt", params{"CiphertextBlob": foreign}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("foreign ciphertext re-encrypted", "ReEncrypt", params{"CiphertextBlob": foreign, "DestinationKeyId": "app-1"}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("reserved context", "Encrypt", params{"KeyId": "app-1", "Plaintext": plaintext, "EncryptionContext": params{"kmsbroker.purpose": "x"}}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("reserved context to open", "Decrypt", params{"CiphertextBlob": "${blob}", "EncryptionContext": params{"kmsbroker.purpose": "x"}}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("key without a grant", "Encrypt", params{"KeyId": "vault", "Plaintext": plaintext}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("its CMK", "Encrypt", params{"KeyId": vault.KeyID, "Plaintext": plaintext}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("its alias", "GenerateDataKey", params{"KeyId": "alias/vault"}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("described", "DescribeKey", params{"KeyId": vault.KeyID}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("its aliases", "ListAliasesByKeyId", params{"KeyId": vault.KeyID}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("no CMK", "Encrypt", params{"KeyId": "11111111-2222-3333-4444-555555555555", "Plaintext": plaintext}, http.StatusForbidden, "Forbidden.NoPermission"),
		refused("no key that is granted", "Encrypt", params{"KeyId": "app-9", "Plaintext": plaintext}, http.StatusNotFound, "Forbidden.KeyNotFound"),
		refused("no base64", "Encrypt", params{"KeyId": "app-1", "Plaintext": "!"}, http.StatusBadRequest, "InvalidParameter"),
		refused("administration", "DisableKey", params{"KeyId": key.KeyID}, http.StatusNotFound, "InvalidAction.NotFound"),
		as("liar", http.StatusBadRequest, "SignatureDoesNotMatch"),
		as("revoked", http.StatusNotFound, "InvalidAccessKeyId.NotFound"),
		as("broker", http.StatusNotFound, "InvalidAccessKeyId.NotFound"),
	}
}

// TestBroker: applications that were written for KMS use the broker with another
// endpoint and key, and nothing else.
func TestBroker(t *testing.T) {
	b := startBroker(t, "")
	for name, client := range map[string]Client{
		"SDK v1, POST":                 sdkV1{b.address, http.MethodPost},
		"SDK v1, GET":                  sdkV1{b.address, http.MethodGet},
		"SDK v2, ACS3-HMAC-SHA256":     sdkV2{host: b.address},
		"SDK v2, RPC v1 and HMAC-SHA1": sdkV2{b.address, new("v2")},
	} {
		t.Run(name, func(t *testing.T) {
			run := NewRun(b.scenario, client, Identity{}, nil)
			for i, step := range b.scenario.Steps {
				if err := run.Do(step); err != nil {
					t.Errorf("step %d, %s: %v", i+1, step.Name, err)
				}
			}
		})
	}
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		t.Run("pop-core, "+method, func(t *testing.T) {
			runNode(t, stage.InstallNode(t, "node"), "http://"+b.address, method, b.scenario, "")
		})
	}
}

// TestBrokerTLS: the same with a certificate, which pop-core checks.
func TestBrokerTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir)
	b := startBroker(t, fmt.Sprintf("tls_cert = %q\ntls_key = %q\n", cert, key))
	runNode(t, stage.InstallNode(t, "node"), "https://"+b.address, http.MethodPost, b.scenario, cert)
	if err := NewRun(b.scenario, sdkV1{b.address, http.MethodPost}, Identity{}, nil).Do(b.scenario.Steps[0]); err == nil {
		t.Error("an SDK was answered without TLS")
	}
}

// writePair writes a certificate for the loopback address, and its key.
func writePair(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls.key")
	writeFile(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	writeFile(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return certFile, keyFile
}
