package alibaba

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const region = "cn-hangzhou"

// house is a core with keys in the emulated KMS, and this door to it.
type house struct {
	core   *broker.Broker
	kms    *kmsapi.Client
	shares *serve.Shares
	cmks   map[string]string // by name of the key

	mu       sync.Mutex
	observed []string // operation and reason of each call
}

// newHouse has the keys open and vault.
func newHouse(t *testing.T, grants ...authz.Grant) *house {
	t.Helper()
	const id, secret = "LTAIalibabatest", "alibaba-test-secret"
	emulated, err := emulator.New(emulator.Config{Regions: []string{region}, AccessKeyID: id, AccessKeySecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { emulated.Close() })
	cloud := httptest.NewServer(emulated)
	t.Cleanup(cloud.Close)
	h := &house{cmks: map[string]string{}}
	h.kms, err = kmsapi.NewClient(kmsapi.ClientConfig{
		Region: region, Endpoint: cloud.URL,
		Credentials: kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: id, AccessKeySecret: secret}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.kms.Close)
	dir := t.TempDir()
	keys, err := keyring.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	for _, name := range []string{"open", "vault"} {
		made, err := h.kms.CreateKey(t.Context(), kmsapi.CreateKeyRequest{Origin: kmsapi.OriginAliyunKMS})
		if err != nil {
			t.Fatal(err)
		}
		h.cmks[name] = made.KeyID
		cmk := keyring.CMK{KeyID: made.KeyID, ARN: made.ARN, Region: region, State: made.State}
		if err := keys.Add(&keyring.Key{Name: name, Region: region, Alias: "alias/" + name, CMKs: []keyring.CMK{cmk}}); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	trail, err := audit.Open(audit.Options{
		Dir: filepath.Join(dir, "audit"), Registry: keys, Logger: log, CommitDelay: time.Second, SegmentSize: 1 << 20, SegmentAge: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trail.Close() })
	h.core = broker.New(broker.Config{
		Version: "test", Keyring: keys, Audit: trail, Policy: authz.NewPolicy(grants), Now: time.Now, Log: log,
		Regions: importer.Endpoints{Default: region, ByRegion: map[string]importer.Endpoint{region: {Region: region, KMS: h.kms}}},
	})
	h.shares = serve.NewShares(t.Context(), serve.NewRoom(), h.core.Names, Door, func(string) {})
	return h
}

// all is a grant of everything with the key open.
func all(change func(*authz.Grant)) authz.Grant {
	g := authz.Grant{Keys: []string{"open"}, Operations: authz.Operations()}
	change(&g)
	return g
}

func me(g *authz.Grant)  { g.UIDs = []uint32{uint32(os.Getuid())} }
func web(g *authz.Grant) { g.Apps = []string{"web"} }

// serve opens the door on a listener until the test ends.
func (h *house) serve(t *testing.T, listener net.Listener, callers Callers) {
	t.Helper()
	door := New(Config{Core: h.core, Log: slog.New(slog.DiscardHandler), Callers: callers, Observe: h.observe})
	server := serve.NewHTTPServer(serve.HTTPConfig{Handler: door, Log: slog.New(slog.DiscardHandler), MaxHeader: MaxHeader, AnswerTime: time.Minute})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(time.Minute); <-done })
}

func (h *house) observe(operation string, err error, _ time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.observed = append(h.observed, operation+" "+reasonOf(err))
}

// socket opens the door for local callers, and returns a client for it.
func (h *house) socket(t *testing.T) *http.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "kb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "alibaba.sock")
	listener, err := serve.Listen(t.Context(), serve.SocketConfig{Path: path, Mode: 0o600, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	h.serve(t, h.shares.Identify(serve.LimitPerUID(listener, func(string) {}), serve.Units{}), OnSocket(h.shares))
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// tcp opens the door for those who sign, and returns its address.
func (h *house) tcp(t *testing.T) string {
	t.Helper()
	callers, err := Signed(t.Context(), h.core, h.shares, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.serve(t, h.shares.Strangers(listener), callers)
	return "http://" + listener.Addr().String()
}

// said is an answer as a client reads it.
type said struct {
	Status int `json:"-"`
	RequestID, KeyID, CiphertextBlob, Plaintext,
	Code, Message string
}

func post(t *testing.T, client *http.Client, address string, form url.Values) said {
	t.Helper()
	resp, err := client.PostForm(address, form)
	return read(t, resp, err)
}

func read(t *testing.T, resp *http.Response, err error) said {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	s := said{Status: resp.StatusCode}
	if err := json.Unmarshal(body, &s); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if s.RequestID == "" || resp.Header.Get("X-Acs-Request-Id") != s.RequestID {
		t.Errorf("no request ID: %s", body)
	}
	return s
}

// plain are the parameters of a request that nobody signed.
func plain(action string, params ...string) url.Values {
	form := url.Values{"Action": {action}, "Version": {apiVersion}}
	for i := 0; i+1 < len(params); i += 2 {
		form.Set(params[i], params[i+1])
	}
	return form
}

// sign signs a form as RPC v1 does, apart from the code under test.
func sign(form url.Values, key keyring.AppKey, secret, nonce string, at time.Time) url.Values {
	for name, value := range map[string]string{
		"AccessKeyId": key.ID, "SignatureMethod": "HMAC-SHA1", "SignatureVersion": "1.0", "SignatureNonce": nonce,
		"Timestamp": at.UTC().Format(wire.TimeLayout),
	} {
		form.Set(name, value)
	}
	form.Del("Signature")
	mac := hmac.New(sha1.New, []byte(secret+"&"))
	fmt.Fprintf(mac, "POST&%%2F&%s", url.QueryEscape(strings.ReplaceAll(form.Encode(), "+", "%20")))
	form.Set("Signature", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return form
}
