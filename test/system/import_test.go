package system

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestImport is the main job: a key born in the HSM becomes an Enabled CMK, and
// what KMS received is, opened independently with the emulator's private key,
// the HSM's key.
func TestImport(t *testing.T) {
	s := stage.New(t, stage.Options{})
	var mu sync.Mutex
	var wrapped, token string
	s.Intercept(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Header.Get("X-Acs-Action") == "ImportKeyMaterial" {
			form := formOf(t, r)
			mu.Lock()
			defer mu.Unlock()
			wrapped, token = form.Get("EncryptedKeyMaterial"), form.Get("ImportToken")
		}
		return true
	})
	s.Start()

	r := s.Ctl(s.Control(), "-o", "json", "key", "import", "app-payments", "--backend", "hsm",
		"--alias", "alias/payments", "--description", "card numbers", "--expires", "90d")
	var key stage.Key
	s.Must(r, &key)
	for _, step := range []string{"plan", "generate", "create", "parameters", "wrap", "import", "verify", "alias"} {
		if !strings.Contains(r.Stderr, "ok  "+step) {
			t.Errorf("progress lacks step %s:\n%s", step, r.Stderr)
		}
	}
	if key.Name != "app-payments" || key.State != "Enabled" || key.Region != stage.Region || key.Backend != "hsm" ||
		key.Alias != "alias/payments" || key.MaterialExpiresAt == nil || key.CreatedAt == "" ||
		!strings.HasSuffix(key.ARN, ":key/"+key.KeyID) {
		t.Errorf("key: %+v", key)
	}

	cmk, err := s.Client().DescribeKey(t.Context(), "alias/payments")
	if err != nil || cmk.KeyID != key.KeyID || cmk.Origin != kmsapi.OriginExternal || cmk.State != kmsapi.Enabled {
		t.Errorf("KMS says %+v, %v", cmk, err)
	}

	private, ok := s.KMS.WrappingKey(token)
	if !ok {
		t.Fatal("the emulator does not know the import token")
	}
	blob, err := base64.StdEncoding.DecodeString(wrapped)
	if err != nil {
		t.Fatal(err)
	}
	// SoftHSM 2.6.1 does OAEP with SHA-1 only, which "auto" must have found out.
	if key.WrappingAlgorithm != "RSAES_OAEP_SHA_1" {
		t.Fatalf("wrapped with %s", key.WrappingAlgorithm)
	}
	material, err := rsa.DecryptOAEP(sha1.New(), rand.Reader, private, blob, nil)
	if err != nil || len(material) != 32 {
		t.Fatalf("the wrapped blob opens to %d bytes, %v", len(material), err)
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		t.Fatal(err)
	}
	var zero [aes.BlockSize]byte
	block.Encrypt(zero[:], zero[:])
	if kcv := hex.EncodeToString(zero[:3]); kcv != key.CheckValue {
		t.Errorf("the material has check value %s, the HSM's key %s", kcv, key.CheckValue)
	}
}

func TestEncryptAndDecrypt(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	key := s.Import("app-1")
	plaintext := make([]byte, 6144) // the largest that KMS takes
	rand.Read(plaintext)
	sealed := s.CtlInput(plaintext, s.Application(), "encrypt", "--key", "app-1", "--context", "a=1", "--context", "b=2")
	s.Must(sealed, nil)
	opened := s.CtlInput([]byte(sealed.Stdout), s.Application(), "decrypt", "--context", "b=2", "--context", "a=1")
	if opened.Status != 0 || !bytes.Equal([]byte(opened.Stdout), plaintext) {
		t.Fatalf("decrypt: status %d, %d bytes, %s", opened.Status, len(opened.Stdout), opened.Stderr)
	}
	named := s.CtlInput([]byte(sealed.Stdout), s.Application(), "-o", "json", "decrypt", "--key", "app-1", "--context", "b=2", "--context", "a=1")
	var answer struct {
		Key   string `json:"key"`
		KeyID string `json:"key_id"`
	}
	s.Must(named, &answer)
	if answer.Key != "app-1" || answer.KeyID != key.KeyID {
		t.Errorf("decrypted with %+v", answer)
	}
}

func TestKeyLife(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	first := s.Import("app-1")
	verb := func(want string, args ...string) {
		t.Helper()
		var key stage.Key
		s.Must(s.Ctl(s.Control(), append([]string{"-o", "json", "key"}, args...)...), &key)
		if key.State != want || key.KeyID != first.KeyID || key.HSMKeyID != first.HSMKeyID {
			t.Errorf("%v: %+v, want state %s", args, key, want)
		}
	}
	verb("Disabled", "disable", "app-1")
	s.Refused(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), 1, "Rejected.Disabled", "hint:")
	verb("Enabled", "enable", "app-1")
	s.Refused(s.Ctl(s.Control(), "key", "delete-material", "app-1"), 2, "--yes")
	verb("PendingImport", "delete-material", "app-1", "--yes")
	s.Refused(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), 1, "Rejected.PendingImport", "reimport")
	verb("Enabled", "reimport", "app-1")
	verb("PendingDeletion", "schedule-deletion", "app-1", "--days", "7", "--yes")
	s.Refused(s.Ctl(s.Control(), "key", "schedule-deletion", "app-1", "--days", "6", "--yes"), 2, "7 to 366")
	verb("Enabled", "cancel-deletion", "app-1")

	var verified struct {
		Checks []struct {
			Name   string `json:"name"`
			Passed bool   `json:"passed"`
		} `json:"checks"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "verify", "app-1"), &verified)
	if len(verified.Checks) != 3 {
		t.Errorf("verify: %+v", verified)
	}
	var keys []stage.Key
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "list"), &keys)
	if len(keys) != 1 || keys[0].State != "Enabled" {
		t.Errorf("list: %+v", keys)
	}
}

// TestForeignEndpoint: whoever runs the endpoint receives the key, so one that
// is not Alibaba's gets nothing without permission, and nothing is generated.
func TestForeignEndpoint(t *testing.T) {
	s := stage.New(t, stage.Options{NoForeign: true})
	s.Start()
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 4, "not verified TLS", "allow_foreign_endpoint")
	var inHSM []any
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "keys", "hsm"), &inHSM)
	if len(inHSM) != 0 || s.Actions("CreateKey") != 0 {
		t.Errorf("%d HSM keys, %d CMKs were made", len(inHSM), s.Actions("CreateKey"))
	}
	if status := s.Ctl(s.Control(), "status"); !strings.Contains(status.Stdout, "FOREIGN") {
		t.Errorf("status hides the foreign endpoint:\n%s", status.Stdout)
	}
}

// TestInterruptedImport kills the daemon while KMS holds back an answer, and
// finishes the import afterwards with the same HSM key and the same CMK.
func TestInterruptedImport(t *testing.T) {
	for _, action := range []string{"CreateKey", "GetParametersForImport", "ImportKeyMaterial", "Encrypt", "CreateAlias"} {
		t.Run(action, func(t *testing.T) {
			s := stage.New(t, stage.Options{})
			reached, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			s.Intercept(func(_ http.ResponseWriter, r *http.Request, kms http.Handler) bool {
				first := false
				if r.Header.Get("X-Acs-Action") == action {
					once.Do(func() { first = true })
				}
				if !first {
					return true
				}
				// The service does it; the answer never arrives.
				kms.ServeHTTP(discard{}, r)
				close(reached)
				<-release
				return false
			})
			daemon := s.Start()
			cut := make(chan stage.Result, 1)
			go func() {
				cut <- s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm", "--alias", "alias/one")
			}()
			<-reached
			daemon.Kill()
			close(release)
			if r := <-cut; r.Status == 0 {
				t.Fatalf("the import succeeded although its daemon was killed: %s", r.Stdout)
			}

			s.Start()
			key := s.Import("app-1", "--alias", "alias/one")
			list, err := s.Client().ListKeys(t.Context(), kmsapi.Page{Number: 1, Size: 100})
			if err != nil || list.Total != 1 || list.Keys[0].KeyID != key.KeyID {
				t.Errorf("CMKs: %+v, %v; the key's is %s", list, err, key.KeyID)
			}
			var inHSM []struct {
				ID  string `json:"id"`
				Key string `json:"key"`
			}
			s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "keys", "hsm"), &inHSM)
			if len(inHSM) != 1 || inHSM[0].ID != key.HSMKeyID || inHSM[0].Key != "app-1" {
				t.Errorf("HSM keys: %+v; the key's is %s", inHSM, key.HSMKeyID)
			}
		})
	}
}

// discard is an answer that nobody receives.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
