package reliable

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// weather is an account of KMS behind gateways that fail at random. It encrypts by
// turning bits over, and counts how often each key was created.
type weather struct {
	t       *testing.T
	mu      sync.Mutex
	random  *rand.Rand
	created map[string]int // by description
	faults  map[string]int
}

// of picks a fault, or none.
func (w *weather) of() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	faults := []string{"throttled", "throttled by the gateway", "server error", "HTML", "reset before", "reset after", "cut short", "slow"}
	fault := ""
	if n := w.random.IntN(5 * len(faults)); n < len(faults) {
		fault = faults[n]
	}
	w.faults[fault]++
	return fault
}

func (w *weather) serve(rw http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		w.t.Error(err)
	}
	fault := w.of()
	switch fault {
	case "throttled":
		text(`{"Code":"Rejected.Throttling","Message":"QPS Limit Exceeded","RequestId":"%s"}`, 429)(rw, "r")
		return
	case "throttled by the gateway":
		text(`{"Code":"Throttling.User","Message":"m","RequestId":"%s"}`, 400)(rw, "r")
		return
	case "HTML":
		text("<h1>%s</h1>", 502)(rw, "Bad Gateway")
		return
	case "reset before":
		hijack(rw, "", 0)
		return
	}
	answer := w.execute(r)
	switch fault {
	case "server error":
		text(`{"Code":"InternalFailure","Message":"m","RequestId":"%s"}`, 500)(rw, "r")
	case "reset after":
		hijack(rw, "", 0)
	case "cut short":
		hijack(rw, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer[:len(answer)/2]), -1)
	case "slow":
		select {
		case <-time.After(20 * time.Millisecond):
			io.WriteString(rw, answer)
		case <-r.Context().Done():
		}
	default:
		io.WriteString(rw, answer)
	}
}

func (w *weather) execute(r *http.Request) string {
	switch form := r.PostForm; form.Get("Action") {
	case "Encrypt":
		return fmt.Sprintf(`{"RequestId":"r","KeyId":"k","CiphertextBlob":%q}`, turned(w.t, form.Get("Plaintext")))
	case "Decrypt":
		return fmt.Sprintf(`{"RequestId":"r","KeyId":"k","Plaintext":%q}`, turned(w.t, form.Get("CiphertextBlob")))
	case "CreateKey":
		w.mu.Lock()
		defer w.mu.Unlock()
		w.created[form.Get("Description")]++
		return `{"RequestId":"r","KeyMetadata":{"KeyId":"k","Arn":"a","KeyState":"PendingImport","Origin":"EXTERNAL","CreationDate":"2026-09-01T10:20:30Z"}}`
	default:
		return `{"RequestId":"r"}`
	}
}

func turned(t *testing.T, blob string) string {
	data, err := base64.StdEncoding.DecodeString(blob)
	if err != nil {
		t.Error(err)
	}
	for i := range data {
		data[i] = ^data[i]
	}
	return base64.StdEncoding.EncodeToString(data)
}

// connections counts those of a server that are open.
type connections struct{ open atomic.Int64 }

func (c *connections) note(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		c.open.Add(-1)
	}
}

// TestSoak: many callers in bad weather. Every call ends, with its own answer or
// an error that says what became of it; no key is made twice; and in the end
// everything is as it was.
func TestSoak(t *testing.T) {
	const callers, duration = 32, 3 * time.Second
	before := goleak.IgnoreCurrent()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := &weather{
		t: t, created: map[string]int{}, faults: map[string]int{},
		random: rand.New(rand.NewPCG(seed, seed)),
	}
	var conns connections
	var endpoints []Endpoint
	var closers []func()
	for _, name := range []string{"vpc", "public"} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.Config.ConnState = conns.note
		server.Start()
		kms, err := kmsapi.NewClient(kmsapi.ClientConfig{Region: "cn-hangzhou", Endpoint: server.URL, Credentials: kmsapi.StaticCredentials(credentials)})
		if err != nil {
			t.Fatal(err)
		}
		endpoints = append(endpoints, Endpoint{Name: name, KMS: kms})
		closers = append(closers, kms.Close, server.Close)
	}
	c := newClient(t, Config{
		Endpoints: endpoints, MaxInFlight: callers / 2, CallTimeout: 2 * time.Second,
		Quotas: Quotas{Crypto: 5000, Reads: 500, Writes: 500, CreateKey: 200},
	})

	until, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	tally := &tally{outcomes: map[string]int{}}
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			ctx := WithCaller(t.Context(), fmt.Sprint("uid ", i%8))
			for n := 0; until.Err() == nil; n++ {
				tally.add(t, w.workOn(ctx, c, fmt.Sprint(i, " ", n)))
			}
		})
	}
	wg.Wait()

	t.Logf("outcomes %v, faults %v", tally.outcomes, w.faults)
	if tally.outcomes["ok"] == 0 || len(w.faults) != 9 {
		t.Error("the weather was not as it should be")
	}
	for key, n := range w.created {
		if n > 1 {
			t.Errorf("key %s was made %d times", key, n)
		}
	}
	status := c.Status()
	if status.InFlight != 0 {
		t.Errorf("%d attempts are still under way", status.InFlight)
	}
	for _, q := range status.Quotas {
		if q.Waiting != 0 {
			t.Errorf("left behind: %+v", q)
		}
	}
	for _, closeIt := range closers {
		closeIt()
	}
	goleak.VerifyNone(t, before)
	if n := conns.open.Load(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// workOn does one thing or another and checks the answer.
func (w *weather) workOn(ctx context.Context, c *Client, name string) error {
	w.mu.Lock()
	what := w.random.IntN(10)
	w.mu.Unlock()
	switch what {
	case 0:
		_, err := c.CreateKey(ctx, kmsapi.CreateKeyRequest{Description: name})
		w.mu.Lock()
		defer w.mu.Unlock()
		e, _ := errors.AsType[*kmsapi.Error](err)
		if made := w.created[name] == 1; err == nil && !made || e != nil && made && !e.OutcomeUnknown() {
			w.t.Errorf("key %s: made %v, told %v", name, made, err)
		}
		return err
	case 1:
		_, err := c.EnableKey(ctx, name)
		return err
	case 2: // somebody in a hurry
		ctx, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		defer cancel()
		return encrypt(ctx, c)
	default:
		sealed, err := c.Encrypt(ctx, kmsapi.EncryptRequest{KeyID: "k", Plaintext: []byte(name)})
		if err != nil {
			return err
		}
		opened, err := c.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: sealed.CiphertextBlob})
		if err == nil && !bytes.Equal(opened.Plaintext, []byte(name)) {
			w.t.Errorf("the answer to %q is %q", name, opened.Plaintext)
		}
		return err
	}
}

type tally struct {
	mu       sync.Mutex
	outcomes map[string]int
}

func (ta *tally) add(t *testing.T, err error) {
	outcome := "ok"
	if err != nil {
		e, ok := errors.AsType[*kmsapi.Error](err)
		if !ok || e.Operation == "" {
			t.Errorf("got %#v", err)
			return
		}
		outcome = string(outcomeOf(e))
	}
	ta.mu.Lock()
	defer ta.mu.Unlock()
	ta.outcomes[outcome]++
}
