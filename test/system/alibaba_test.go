package system

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// answered is what Alibaba Cloud's protocol answers, of whatever action.
type answered struct {
	RequestID      string `json:"RequestId"`
	KeyID          string `json:"KeyId"`
	CiphertextBlob string
	Plaintext      string
	Code, Message  string
	TotalCount     int
}

func decodeAnswer(t *testing.T, body []byte) answered {
	t.Helper()
	var a answered
	if err := json.Unmarshal(body, &a); err != nil || a.RequestID == "" {
		t.Fatalf("%v: %s", err, body)
	}
	return a
}

// curl asks the socket in the way that docs/applications.md shows.
func curl(t *testing.T, s *stage.Stage, args ...string) answered {
	t.Helper()
	all := append([]string{"--silent", "--show-error", "--max-time", "30", "--unix-socket", s.Path("run/alibaba.sock"), "http://localhost/"}, args...)
	out, err := exec.CommandContext(t.Context(), "curl", all...).Output()
	if err != nil {
		t.Fatalf("curl: %v", err)
	}
	return decodeAnswer(t, out)
}

// viaNode asks the socket from Node.js, without a package.
func viaNode(t *testing.T, s *stage.Stage, query string) answered {
	t.Helper()
	const program = `
const [socketPath, body] = process.argv.slice(2);
const headers = { 'content-type': 'application/x-www-form-urlencoded', 'content-length': Buffer.byteLength(body) };
const request = require('node:http').request({ socketPath, method: 'POST', path: '/', headers }, (response) => response.pipe(process.stdout));
request.end(body);`
	s.Write("ask.cjs", program, 0o600)
	out, err := exec.CommandContext(t.Context(), "node", s.Path("ask.cjs"), s.Path("run/alibaba.sock"), query).CombinedOutput()
	if err != nil {
		t.Fatalf("node: %v: %s", err, out)
	}
	return decodeAnswer(t, out)
}

// TestAlibabaSocket: who can speak HTTP over a Unix socket needs no access key; the
// kernel says who it is, and the same grants decide.
func TestAlibabaSocket(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	if info, err := os.Stat(s.Path("run/alibaba.sock")); err != nil || info.Mode() != os.ModeSocket|0o666 {
		t.Errorf("%v, %v", info, err)
	}
	key := s.Import("app-1", "--alias", "alias/first")
	vault := s.Import("vault")
	foreign, err := s.Client().Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: vault.KeyID, Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	secret := base64.StdEncoding.EncodeToString([]byte("+/ &=secret"))
	form := func(action string, params ...string) []string {
		args := []string{"-d", "Action=" + action, "-d", "Version=2016-01-20"}
		for _, p := range params {
			args = append(args, "--data-urlencode", p)
		}
		return args
	}

	sealed := curl(t, s, form("Encrypt", "KeyId=alias/first", "Plaintext="+secret, `EncryptionContext={"a":"1"}`)...)
	if sealed.KeyID != key.KeyID || sealed.CiphertextBlob == "" {
		t.Fatalf("%+v", sealed)
	}
	opened := curl(t, s, append(form("Decrypt", "CiphertextBlob="+sealed.CiphertextBlob, `EncryptionContext={"a":"1"}`), "-G")...)
	if opened.Plaintext != secret {
		t.Errorf("in the query: %+v", opened)
	}
	if listed := curl(t, s, form("ListKeys")...); listed.TotalCount != 1 {
		t.Errorf("%+v", listed)
	}
	params := "Action=Encrypt&Version=2016-01-20&KeyId=app-1&Plaintext=aGVsbG8%3D"
	fromNode := viaNode(t, s, params)
	if back := curl(t, s, form("Decrypt", "CiphertextBlob="+fromNode.CiphertextBlob)...); back.Plaintext != "aGVsbG8=" {
		t.Errorf("Node.js: %+v, %+v", fromNode, back)
	}
	// Whoever signed, it is this process' user that calls.
	if got := curl(t, s, append(form("ListKeys"), "-d", "AccessKeyId="+stage.AccessKeyID, "-d", "Signature=none")...); got.TotalCount != 1 {
		t.Errorf("signed: %+v", got)
	}

	for name, got := range map[string]answered{
		"reserved context":   curl(t, s, form("Encrypt", "KeyId=app-1", "Plaintext="+secret, `EncryptionContext={"kmsbroker.x":"1"}`)...),
		"foreign ciphertext": curl(t, s, form("Decrypt", "CiphertextBlob="+foreign.CiphertextBlob)...),
		"without a grant":    curl(t, s, form("Encrypt", "KeyId=vault", "Plaintext="+secret)...),
	} {
		if got.Code != "Forbidden.NoPermission" || got.Plaintext != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if strings.Contains(curl(t, s, form("Encrypt", "KeyId="+vault.KeyID, "Plaintext="+secret)...).Message, "vault") {
		t.Error("a refusal tells what the broker calls the key")
	}
	if got := curl(t, s, form("Encrypt", "KeyId=app-9", "Plaintext="+secret)...); got.Code != "Forbidden.KeyNotFound" {
		t.Errorf("%+v", got)
	}
	// KMS's own refusal keeps its code and its ID.
	s.Must(s.Ctl(s.Control(), "key", "disable", "app-1"), nil)
	disabled := curl(t, s, form("Encrypt", "KeyId=app-1", "Plaintext="+secret)...)
	if disabled.Code != "Rejected.Disabled" {
		t.Errorf("%+v", disabled)
	}
	if value := scrape(t, s)[`kmsbroker_calls_total{door="alibaba",operation="Encrypt",outcome="denied"`]; value != 3 {
		t.Errorf("%v denied calls were counted", value)
	}

	daemon.Stop()
	trail := s.AuditTrail()
	for _, word := range []string{
		`"action":"encrypt","outcome":"done","caller":{"uid":` + strconv.Itoa(os.Getuid()), `"door":"alibaba","key":"app-1","key_id":"` + key.KeyID,
		`"request_id":"` + sealed.RequestID, `"request_id":"` + disabled.RequestID, `"reason":"FOREIGN_CIPHERTEXT"`,
	} {
		if !strings.Contains(trail, word) {
			t.Errorf("the trail lacks %s", word)
		}
	}
	if _, err := os.Stat(s.Path("run/alibaba.sock")); !os.IsNotExist(err) {
		t.Errorf("a stopped daemon left its socket: %v", err)
	}
	s.Write("kmsbrokerd.toml", s.Read("kmsbrokerd.toml")+"\n[sockets]\nalibaba = ''\n", 0o644)
	s.Start()
	if _, err := os.Stat(s.Path("run/alibaba.sock")); !os.IsNotExist(err) {
		t.Errorf("switched off: %v", err)
	}
}

// onTCP configures a stage to answer the application web at an address.
func onTCP(t *testing.T, s *stage.Stage, grant string) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s.Write("kmsbrokerd.toml", s.Read("kmsbrokerd.toml")+fmt.Sprintf(`
[[grant]]
keys       = ["app-*"]
operations = ["encrypt", "decrypt"]
apps       = ["web"]
%s

[alibaba]
listen = %q
`, grant, listener.Addr()), 0o600)
	return "http://" + listener.Addr().String()
}

// issue gives an application an access key.
func issue(t *testing.T, s *stage.Stage, app, file string) kmsapi.Credentials {
	t.Helper()
	r := s.Ctl(s.Control(), "app", "issue", app, "--out", s.Path(file))
	s.Must(r, nil)
	key, err := kmsapi.ParseCredentials([]byte(s.Read(file)))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.Stdout+r.Stderr, key.AccessKeySecret) {
		t.Error("the secret was shown")
	}
	if info, err := os.Stat(s.Path(file)); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	return key
}

// recorder keeps the last request that it sent, and sends it again.
type recorder struct {
	http.Transport
	last *http.Request
	body []byte
}

func (r *recorder) record(req *http.Request) {
	r.last = req.Clone(context.Background())
	if req.Body != nil {
		var body bytes.Buffer
		_, _ = body.ReadFrom(req.Body)
		r.body = body.Bytes()
		r.last.Body = http.NoBody
	}
}

func (r *recorder) replay(t *testing.T) answered {
	t.Helper()
	req := r.last.Clone(t.Context())
	req.Body, req.ContentLength, req.RequestURI = http.NoBody, int64(len(r.body)), ""
	if len(r.body) > 0 {
		req.Body = readCloser{bytes.NewReader(r.body)}
	}
	resp, err := r.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return decodeAnswer(t, out.Bytes())
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// TestAlibabaTCP: an application is the one that its access key was issued to, as
// long as it was not revoked, and each request counts once.
func TestAlibabaTCP(t *testing.T) {
	s := stage.New(t, stage.Options{})
	url := onTCP(t, s, `rate = "4/h"`)
	daemon := s.Start()
	key := s.Import("app-1")
	s.Import("vault")
	web := issue(t, s, "web", "web.toml")
	s.Refused(s.Ctl(s.Control(), "app", "issue", "web", "--out", s.Path("web.toml")), 1, "exists", "new file")
	spare := issue(t, s, "web", "spare.toml")
	s.Refused(s.Ctl(s.Control(), "app", "issue", "web", "--out", s.Path("third.toml")), 1, "has 2 access keys already")
	if _, err := os.Stat(s.Path("third.toml")); !os.IsNotExist(err) {
		t.Errorf("a key that was not issued has a file: %v", err)
	}
	s.Refused(s.Ctl(s.Control(), "app", "issue", "a/b", "--out", s.Path("third.toml")), 1, "name of an application")
	var listed []struct {
		App         string `json:"app"`
		AccessKeyID string `json:"access_key_id"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "app", "list"), &listed)
	if len(listed) != 2 || listed[0].App != "web" || listed[0].AccessKeyID != web.AccessKeyID {
		t.Errorf("%+v", listed)
	}

	// A proxy sees a request and sends it again.
	sent := &recorder{}
	defer sent.CloseIdleConnections()
	proxy := newProxy(t, url, sent)
	client := func(key kmsapi.Credentials) *kmsapi.Client {
		c, err := kmsapi.NewClient(kmsapi.ClientConfig{Region: stage.Region, Endpoint: proxy, Credentials: kmsapi.StaticCredentials(key)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	encrypt := func(key kmsapi.Credentials, name string) (code string) {
		t.Helper()
		_, err := client(key).Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: name, Plaintext: []byte("x")})
		return codeOf(t, err)
	}
	first := client(web)
	sealed, err := first.Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: "app-1", Plaintext: []byte("hello"), Context: map[string]string{"a": "1"}})
	if err != nil || sealed.KeyID != key.KeyID {
		t.Fatalf("%+v, %v", sealed, err)
	}
	if again := sent.replay(t); again.Code != "SignatureNonceUsed" {
		t.Errorf("replayed: %+v", again)
	}
	opened, err := first.Decrypt(t.Context(), kmsapi.DecryptRequest{CiphertextBlob: sealed.CiphertextBlob, Context: map[string]string{"a": "1"}})
	if err != nil || string(opened.Plaintext) != "hello" {
		t.Errorf("%+v, %v", opened, err)
	}
	for _, test := range []struct {
		name, key string
		as        kmsapi.Credentials
		want      string
	}{
		{"the other key", "app-1", spare, ""},
		{"without a grant", "vault", web, "Forbidden.NoPermission"},
		{"wrong secret", "app-1", kmsapi.Credentials{AccessKeyID: web.AccessKeyID, AccessKeySecret: spare.AccessKeySecret}, "SignatureDoesNotMatch"},
		{"the broker's own key", "app-1", kmsapi.Credentials{AccessKeyID: stage.AccessKeyID, AccessKeySecret: stage.AccessKeySecret}, "InvalidAccessKeyId.NotFound"},
		{"a last one", "app-1", web, ""},
		{"more than the rate", "app-1", web, "Rejected.Throttling"},
	} {
		if got := encrypt(test.as, test.key); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	// On a connection that is open.
	s.Must(s.Ctl(s.Control(), "app", "revoke", web.AccessKeyID), nil)
	_, err = first.Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: "app-1", Plaintext: []byte("x")})
	if code := codeOf(t, err); code != "InvalidAccessKeyId.NotFound" {
		t.Errorf("revoked: %q", code)
	}
	s.Refused(s.Ctl(s.Control(), "app", "revoke", web.AccessKeyID), 5, "there is no access key")

	var e explanation
	s.Must(s.Ctl(s.Control(), "-o", "json", "policy", "explain", "--app", "web", "--key", "app-1", "--op", "encrypt"), &e)
	if !e.Allowed || e.Grant != 2 {
		t.Errorf("%+v", e)
	}

	daemon.Stop()
	trail := s.Ctl(s.Control(), "audit", "search", "--dir", s.Path("state/audit"), "--app", "web")
	s.Must(trail, nil)
	if n := strings.Count(trail.Stdout, "app=web door=alibaba"); n != 6 || strings.Contains(trail.Stdout, "uid=") {
		t.Errorf("%d records of the application:\n%s", n, trail.Stdout)
	}
}

// TestAlibabaStale: what was stamped before the daemon started is refused: the
// process before it may have served it, and knows the nonces alone.
func TestAlibabaStale(t *testing.T) {
	s := stage.New(t, stage.Options{})
	url := onTCP(t, s, "")
	daemon := s.Start()
	s.Import("app-1")
	web := issue(t, s, "web", "web.toml")
	sent := &recorder{}
	defer sent.CloseIdleConnections()
	client, err := kmsapi.NewClient(kmsapi.ClientConfig{Region: stage.Region, Endpoint: newProxy(t, url, sent), Credentials: kmsapi.StaticCredentials(web)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	request := kmsapi.EncryptRequest{KeyID: "app-1", Plaintext: []byte("x")}
	if _, err := client.Encrypt(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	daemon.Stop()
	s.Start()
	if again := sent.replay(t); again.Code != "InvalidTimeStamp.Expired" {
		t.Errorf("%+v", again)
	}
	if _, err := client.Encrypt(t.Context(), request); err != nil {
		t.Errorf("a new request: %v", err)
	}
}

// newProxy passes requests on as they are, and has the recorder see them.
func newProxy(t *testing.T, url string, sent *recorder) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := strings.TrimPrefix(url, "http://")
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.record(r)
		sent.last.URL.Scheme, sent.last.URL.Host = "http", target
		req := sent.last.Clone(r.Context())
		req.RequestURI, req.ContentLength = "", int64(len(sent.body))
		if len(sent.body) > 0 {
			req.Body = readCloser{bytes.NewReader(sent.body)}
		}
		resp, err := sent.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		w.WriteHeader(resp.StatusCode)
		var out bytes.Buffer
		_, _ = out.ReadFrom(resp.Body)
		_, _ = w.Write(out.Bytes())
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String()
}

// codeOf is Alibaba Cloud's code of an error, "" for none.
func codeOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	refused, ok := errors.AsType[*kmsapi.Error](err)
	if !ok || refused.Code == "" {
		t.Errorf("not an answer: %v", err)
		return ""
	}
	return refused.Code
}
