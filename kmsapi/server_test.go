package kmsapi

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testKeyID  = "AKtestid"
	testSecret = "AKtestsecret-0123456789"
	testToken  = "STStoken+/=with~odd*characters and spaces"
)

var testCredentials = Credentials{AccessKeyID: testKeyID, AccessKeySecret: testSecret, SecurityToken: testToken}

// server is a KMS that checks how it is spoken to and answers what it is told.
type server struct {
	*httptest.Server
	t testing.TB

	mu    sync.Mutex
	forms []url.Values
}

// newServer starts a server whose answers come from answer, and a client of it.
func newServer(t testing.TB, answer http.HandlerFunc) (*server, *Client) {
	t.Helper()
	s := &server{t: t}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.check(r)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	client, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: s.URL, Credentials: StaticCredentials(testCredentials)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return s, client
}

// check demands that nothing is in the URL and that the signature holds for the
// form (documentation of KMS, "Signature").
func (s *server) check(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Errorf("request body: %v", err)
	}
	if r.Method != http.MethodPost || r.RequestURI != "/" {
		s.t.Errorf("request line is %s %s", r.Method, r.RequestURI)
	}
	if got := r.Header.Get("Content-Type"); got != "application/x-www-form-urlencoded" {
		s.t.Errorf("Content-Type %q", got)
	}
	if r.ContentLength != int64(len(body)) {
		s.t.Errorf("ContentLength %d for a body of %d", r.ContentLength, len(body))
	}
	for name := range r.Header {
		if strings.Contains(strings.ToLower(name), "idempotency") {
			s.t.Errorf("header %s was sent", name)
		}
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		s.t.Errorf("form: %v", err)
	}
	if want := signature(form, testSecret); form.Get("Signature") != want {
		s.t.Errorf("Signature %q, want %q", form.Get("Signature"), want)
	}
	for name, want := range map[string]string{
		"AccessKeyId": testKeyID, "SecurityToken": testToken, "Version": APIVersion, "RegionId": "cn-hangzhou", "Format": "JSON",
	} {
		if form.Get(name) != want {
			s.t.Errorf("%s = %q, want %q", name, form.Get(name), want)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forms = append(s.forms, form)
}

func (s *server) calls() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.forms)
}

func signature(form url.Values, secret string) string {
	escape := func(text string) string {
		return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if name != "Signature" {
			pairs = append(pairs, escape(name)+"="+escape(form.Get(name)))
		}
	}
	mac := hmac.New(sha1.New, []byte(secret+"&"))
	fmt.Fprint(mac, "POST&%2F&"+escape(strings.Join(pairs, "&")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// answerWith answers every request alike.
func answerWith(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// encryptFixed is a call that every fault can be tried on.
func encryptFixed(ctx context.Context, c *Client) error {
	_, err := c.Encrypt(ctx, EncryptRequest{KeyID: "key-1", Plaintext: []byte(plaintext), Context: map[string]string{"tenant": "context-secret"}})
	return err
}

const plaintext = "attack at dawn, said the plaintext"
