package ram

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	rootID     = "LTAIroot"
	rootSecret = "root-secret"
)

// account is an emulator of RAM, STS and KMS, and its administrator.
type account struct {
	*Client
	url string

	mu sync.Mutex
	// now is the emulator's time; each request takes a minute, so that what is
	// made has an order.
	now time.Time
	// answer replaces the emulator's answer to an action of RAM, after the
	// emulator has done it or before.
	answer func(w http.ResponseWriter, action string, after bool) bool
}

func newAccount(t *testing.T) *account {
	t.Helper()
	a := &account{now: time.Now()}
	emulated, err := emulator.New(emulator.Config{
		Regions: []string{"cn-hangzhou"}, AccessKeyID: rootID, AccessKeySecret: rootSecret, Clock: a.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(a.between(emulated))
	t.Cleanup(server.Close)
	a.url = server.URL
	a.Client = a.as(t, kmsapi.Credentials{AccessKeyID: rootID, AccessKeySecret: rootSecret})
	return a
}

func (a *account) clock() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

func (a *account) between(emulated http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.now = a.now.Add(time.Minute)
		answer := a.answer
		a.mu.Unlock()
		action := r.Header.Get("X-Acs-Action")
		if answer == nil {
			emulated.ServeHTTP(w, r)
			return
		}
		if answer(w, action, false) {
			return
		}
		done := httptest.NewRecorder()
		emulated.ServeHTTP(done, r)
		if answer(w, action, true) {
			return
		}
		w.WriteHeader(done.Code)
		w.Write(done.Body.Bytes())
	})
}

func (a *account) interfere(answer func(w http.ResponseWriter, action string, after bool) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *account) as(t *testing.T, credentials kmsapi.Credentials) *Client {
	t.Helper()
	c, err := New(Config{Endpoint: a.url, Credentials: kmsapi.StaticCredentials(credentials)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// kms is the account's KMS in the hands of somebody.
func (a *account) kms(t *testing.T, credentials kmsapi.Credentials) *kmsapi.Client {
	t.Helper()
	c, err := kmsapi.NewClient(kmsapi.ClientConfig{Region: "cn-hangzhou", Endpoint: a.url, Credentials: kmsapi.StaticCredentials(credentials)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (a *account) rootKMS(t *testing.T) *kmsapi.Client {
	return a.kms(t, kmsapi.Credentials{AccessKeyID: rootID, AccessKeySecret: rootSecret})
}

// box keeps what is delivered.
type box struct {
	key   kmsapi.Credentials
	fails error
}

func (b *box) deliver(_ context.Context, c kmsapi.Credentials) error {
	b.key = c
	return b.fails
}

// fail answers an action with a refusal.
func fail(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"Code":%q,"Message":"m","RequestId":"R"}`, code)
}
