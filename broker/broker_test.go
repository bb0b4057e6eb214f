package broker

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/datakey"
	"github.com/kmsbroker/kmsbroker/broker/evidence"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/hsmtest"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

// The callers of these tests.
var (
	alice = Call{Caller: authz.Caller{UID: 1000, GID: 1000, PID: 1}, Door: "test"}
	bob   = Call{Caller: authz.Caller{UID: 1001, GID: 1001, PID: 2}, Door: "test"}
	admin = Call{Door: "control"}
)

// house is a core on a token in memory and the emulated KMS over real HTTP.
type house struct {
	*Broker
	token *hsmtest.Token
	kms   *kmsapi.Client // of the default region
	cloud *cloud
	trail string
	ahead time.Duration // of the broker's clock
}

// offline is how long data keys may be used while KMS is down, beyond five minutes.
const offline = time.Hour

func newHouse(t *testing.T, grants ...authz.Grant) *house {
	t.Helper()
	dir := t.TempDir()
	keys, err := keyring.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	trail, err := audit.Open(audit.Options{
		Dir: filepath.Join(dir, "audit"), Registry: keys, Logger: slog.New(slog.DiscardHandler),
		BeforeAnswer: true, CommitDelay: time.Second, SegmentSize: 1 << 20, SegmentAge: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trail.Close() })
	signer, err := evidence.OpenSigner(dir)
	if err != nil {
		t.Fatal(err)
	}
	cloud := newCloud(t, "cn-hangzhou", "cn-shanghai")
	h := &house{token: hsmtest.New(), cloud: cloud, kms: cloud.clients["cn-hangzhou"], trail: filepath.Join(dir, "audit")}
	ready := backend.New(backend.Config{
		Name: "hsm", AllowForeignEndpoint: true, Logins: keys, CallTimeout: time.Minute, Log: slog.New(slog.DiscardHandler), Changed: func(backend.Status) {},
		Launch: func(context.Context) (backend.Process, error) { return running{h.token}, nil },
	})
	set := backend.NewSet(ready)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); set.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	h.Broker = New(Config{
		Version: "test", Keyring: keys, Audit: trail, Backends: set, Policy: authz.NewPolicy(grants),
		Now: func() time.Time { return time.Now().Add(h.ahead) }, Log: slog.New(slog.DiscardHandler), Regions: cloud.endpoints(), Evidence: signer,
		Envelope: datakey.Limits{Age: 5 * time.Minute, Idle: 5 * time.Minute, Offline: offline, MaxMessages: 1000, MaxBytes: 1 << 40},
	})
	return h
}

// cloud is the emulated KMS in several regions. While a region is down, its
// connections are cut.
type cloud struct {
	regions []string
	clients map[string]*kmsapi.Client
	down    map[string]*atomic.Bool
}

func newCloud(t *testing.T, regions ...string) *cloud {
	t.Helper()
	const id, secret = "LTAIbrokertest", "broker-test-secret"
	server, err := emulator.New(emulator.Config{Regions: regions, AccessKeyID: id, AccessKeySecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	c := &cloud{regions: regions, clients: map[string]*kmsapi.Client{}, down: map[string]*atomic.Bool{}}
	for _, region := range regions {
		down := new(atomic.Bool)
		endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if down.Load() {
				panic(http.ErrAbortHandler)
			}
			server.ServeHTTP(w, r)
		}))
		t.Cleanup(endpoint.Close)
		client, err := kmsapi.NewClient(kmsapi.ClientConfig{
			Region: region, Endpoint: endpoint.URL,
			Credentials: kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: id, AccessKeySecret: secret}),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		c.clients[region], c.down[region] = client, down
	}
	return c
}

func (c *cloud) endpoints() importer.Endpoints {
	e := importer.Endpoints{Default: c.regions[0], ByRegion: map[string]importer.Endpoint{}}
	for region, client := range c.clients {
		e.ByRegion[region] = importer.Endpoint{
			KMS: client, URL: client.Endpoint().String(), Region: region, WrappingAlgorithms: hsm.WrappingAlgorithms(),
		}
	}
	return e
}

// running is a plugin process that never ends by itself.
type running struct{ token *hsmtest.Token }

func (r running) Token() hsm.Token         { return r.token }
func (running) PID() int                   { return 1 }
func (running) Ping(context.Context) error { return nil }
func (running) Exited() <-chan struct{}    { return nil }
func (running) Kill()                      {}
func (running) Shutdown(context.Context)   {}
func (running) Sessions(context.Context) (cryptoki.Device, error) {
	return nil, hsm.Errorf(hsm.NotPermitted, "no sessions")
}

func (h *house) importKey(t *testing.T, name string, regions ...string) *keyring.Key {
	t.Helper()
	key, err := h.ImportKey(t.Context(), admin, newKey(name, regions...), func(importer.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newKey(name string, regions ...string) importer.Request {
	return importer.Request{Kind: keyring.NewKey, Name: name, Backend: "hsm", Regions: regions}
}

// lastRecord returns the newest line of the audit trail.
func (h *house) lastRecord(t *testing.T) audit.Event {
	t.Helper()
	var event audit.Event
	err := audit.Tail(t.Context(), h.trail, 1, false, func(e audit.Entry) error { event = e.Event; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func grant(uid uint32, key string, ops ...authz.Operation) authz.Grant {
	return authz.Grant{Keys: []string{key}, Operations: ops, UIDs: []uint32{uid}}
}

// TestDecryptRule holds the core to its central promise: nobody is handed a
// plaintext whose key is not theirs to decrypt with, whatever the broker's own
// credentials can open.
func TestDecryptRule(t *testing.T) {
	h := newHouse(t,
		grant(1000, "alice-*", authz.Encrypt, authz.Decrypt),
		grant(1001, "bob", authz.Encrypt, authz.Decrypt),
		grant(1000, "shared", authz.Encrypt))
	mine := h.importKey(t, "alice-1").Current().KeyID
	also := h.importKey(t, "alice-2").Current().KeyID
	his := h.importKey(t, "bob").Current().KeyID
	shared := h.importKey(t, "shared").Current().KeyID
	stranger, err := h.kms.CreateKey(t.Context(), kmsapi.CreateKeyRequest{Origin: kmsapi.OriginAliyunKMS, KeySpec: kmsapi.KeySpecAES256, KeyUsage: kmsapi.UsageEncrypt})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, sealedWith, named string
		call                    Call
		want                    failure.Kind
		reason                  string // empty: it opens
	}{
		{"own blob", mine, "", alice, 0, ""},
		{"own blob, named", mine, "alice-1", alice, 0, ""},
		{"own blob under another own name", mine, "alice-2", alice, failure.Denied, "FOREIGN_CIPHERTEXT"},
		{"the other own key", also, "alice-2", alice, 0, ""},
		{"another's blob, unnamed", his, "", alice, failure.Denied, "FOREIGN_CIPHERTEXT"},
		{"another's blob under an own name", his, "alice-1", alice, failure.Denied, "FOREIGN_CIPHERTEXT"},
		{"another's blob under its name", his, "bob", alice, failure.Denied, "NO_GRANT"},
		{"blob of a key granted for encryption only", shared, "", alice, failure.Denied, "FOREIGN_CIPHERTEXT"},
		{"a CMK outside the broker", stranger.KeyID, "", alice, failure.Denied, "FOREIGN_CIPHERTEXT"},
		{"a CMK outside the broker, by its owner's name", stranger.KeyID, "bob", bob, failure.Denied, "FOREIGN_CIPHERTEXT"},
		{"a caller without any grant", mine, "", Call{Caller: authz.Caller{UID: 7}, Door: "test"}, failure.Denied, "NO_GRANT"},
		{"root without any grant", mine, "", Call{Door: "test"}, failure.Denied, "NO_GRANT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sealed, err := h.kms.Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: tt.sealedWith, Plaintext: []byte("secret")})
			if err != nil {
				t.Fatal(err)
			}
			opened, err := h.Decrypt(t.Context(), tt.call, tt.named, "", sealed.CiphertextBlob, nil)
			record := h.lastRecord(t)
			if tt.reason == "" {
				if err != nil || string(opened.Plaintext) != "secret" || record.Outcome != audit.Done || record.KeyID != tt.sealedWith {
					t.Fatalf("Decrypt: %+v, %v; record %+v", opened, err, record)
				}
				return
			}
			if f := failure.From(err); opened != nil || f.Kind != tt.want || f.Reason != tt.reason {
				t.Errorf("Decrypt: %+v, %v (%v %s)", opened, err, f.Kind, f.Reason)
			}
			if record.Outcome != audit.Denied || record.Reason != tt.reason || record.Caller.UID != tt.call.Caller.UID {
				t.Errorf("record: %+v", record)
			}
		})
	}
}

func TestReservedContext(t *testing.T) {
	h := newHouse(t, grant(1000, "*", authz.Operations()...))
	key := h.importKey(t, "k").Current().KeyID
	reserved := map[string]string{"kmsbroker.purpose": "verify"}
	sealed, err := h.kms.Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: key, Plaintext: []byte("x"), Context: reserved})
	if err != nil {
		t.Fatal(err)
	}
	_, encryptErr := h.Encrypt(t.Context(), alice, "k", "", []byte("x"), reserved)
	_, decryptErr := h.Decrypt(t.Context(), alice, "", "", sealed.CiphertextBlob, reserved)
	_, namedErr := h.Decrypt(t.Context(), alice, "k", "", sealed.CiphertextBlob, reserved)
	_, dataKeyErr := h.GenerateDataKey(t.Context(), alice, "k", "", 32, reserved, true)
	_, hiddenErr := h.GenerateDataKey(t.Context(), alice, "k", "", 32, reserved, false)
	own, err := h.Encrypt(t.Context(), alice, "k", "", []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, fromErr := h.ReEncrypt(t.Context(), alice, ReEncryption{Key: "k", CiphertextBlob: sealed.CiphertextBlob, SourceContext: reserved})
	_, toErr := h.ReEncrypt(t.Context(), alice, ReEncryption{Key: "k", CiphertextBlob: own.CiphertextBlob, Context: reserved})
	for i, err := range []error{encryptErr, decryptErr, namedErr, dataKeyErr, hiddenErr, fromErr, toErr} {
		if f := failure.From(err); f == nil || f.Reason != "RESERVED_CONTEXT" || f.Kind != failure.Denied {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestDataKey(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.GenerateDataKeyWithoutPlaintext, authz.Decrypt), grant(1001, "k", authz.GenerateDataKey))
	h.importKey(t, "k")
	if _, err := h.GenerateDataKey(t.Context(), alice, "k", "", 32, nil, true); failure.KindOf(err) != failure.Denied {
		t.Errorf("a data key in clear without the grant: %v", err)
	}
	hidden, err := h.GenerateDataKey(t.Context(), alice, "k", "", 16, nil, false)
	if err != nil || hidden.Plaintext != nil {
		t.Fatalf("without plaintext: %+v, %v", hidden, err)
	}
	opened, err := h.Decrypt(t.Context(), alice, "k", "", hidden.CiphertextBlob, nil)
	if err != nil || len(opened.Plaintext) != 16 {
		t.Errorf("the data key opens to %v, %v", opened, err)
	}
	clear, err := h.GenerateDataKey(t.Context(), bob, "k", "", 0, nil, true)
	if err != nil || len(clear.Plaintext) != 32 {
		t.Errorf("default size: %v", err)
	}
	if _, err := h.GenerateDataKey(t.Context(), bob, "k", "", 1025, nil, true); failure.KindOf(err) != failure.Invalid {
		t.Errorf("1025 bytes: %v", err)
	}
}

// TestNothingUnrecorded: without its audit trail the broker does nothing.
func TestNothingUnrecorded(t *testing.T) {
	h := newHouse(t, grant(1000, "*", authz.Operations()...))
	key := h.importKey(t, "k")
	sealed, err := h.Encrypt(t.Context(), alice, "k", "", []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(h.trail); err != nil {
		t.Fatal(err)
	}
	wraps := h.token.Calls("Wrap")
	opened, decryptErr := h.Decrypt(t.Context(), alice, "", "", sealed.CiphertextBlob, nil)
	_, importErr := h.ImportKey(t.Context(), admin, newKey("k2"), func(importer.Progress) {})
	_, changeErr := h.ChangeKey(t.Context(), admin, DisableKey(), Target{Key: "k"})
	for name, err := range map[string]error{"decrypt": decryptErr, "import": importErr, "disable": changeErr} {
		if f := failure.From(err); f == nil || f.Reason != "AUDIT" || f.Kind != failure.Unavailable || f.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if opened != nil || h.token.Calls("Wrap") != wraps {
		t.Error("something was done unrecorded")
	}
	if cmk, err := h.kms.DescribeKey(t.Context(), key.Current().KeyID); err != nil || cmk.State != kmsapi.Enabled {
		t.Errorf("the CMK was changed unrecorded: %+v, %v", cmk, err)
	}
	if h.Status().AuditErr == nil {
		t.Error("status does not show that the trail is broken")
	}
}

func TestChangeKey(t *testing.T) {
	h := newHouse(t)
	h.importKey(t, "k")
	key, err := h.ChangeKey(t.Context(), admin, DisableKey(), Target{Key: "k"})
	if err != nil || key.Current().State != kmsapi.Disabled {
		t.Fatalf("disable: %+v, %v", key, err)
	}
	if record := h.lastRecord(t); record.Action != "key.disable" || record.RequestID == "" || record.Key != "k" {
		t.Errorf("record: %+v", record)
	}
	if listed, _ := h.Keys(); listed[0].Current().State != kmsapi.Disabled {
		t.Error("the registry did not learn the new state")
	}
	if _, err := h.ChangeKey(t.Context(), admin, ScheduleKeyDeletion(367), Target{Key: "k"}); failure.KindOf(err) != failure.Invalid {
		t.Errorf("367 days: %v", err)
	}
	if _, err := h.ChangeKey(t.Context(), admin, EnableKey(), Target{Key: "none"}); failure.KindOf(err) != failure.NotFound {
		t.Errorf("unknown key: %v", err)
	}
}
