package kmsapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// localLimit is a cause as a limiter on this side gives it.
type localLimit struct{ error }

func (localLimit) Throttled() bool { return true }

func TestMeaningOfFailures(t *testing.T) {
	some := errors.New("x")
	for _, tt := range []struct {
		name                                  string
		failure                               Error
		throttled, unknown, broken, temporary bool
	}{
		{"refusal", Error{Code: CodeDisabled, Status: 409, Stage: StageAnswered}, false, false, false, false},
		{"KMS throttles", Error{Code: CodeThrottled, Status: 429, Stage: StageAnswered}, true, false, false, true},
		{"the gateway throttles", Error{Code: "Throttling.User", Status: 400, Stage: StageAnswered}, true, false, false, true},
		{"a status alone throttles", Error{Status: 429, Stage: StageAnswered, Cause: some}, true, true, false, true},
		{"our own limit", Error{Stage: StageLocal, Cause: localLimit{some}}, true, false, false, true},
		{"credentials throttled elsewhere", Error{Stage: StageLocal, Cause: &Error{Code: "Throttling", Status: 400}}, true, false, false, true},
		{"bad parameter", Error{Stage: StageLocal, Cause: some}, false, false, false, false},
		{"no connection", Error{Stage: StageConnect, Cause: some}, false, false, true, true},
		{"no answer", Error{Cause: some}, false, true, true, true},
		{"too late", Error{Cause: context.DeadlineExceeded}, false, true, true, true},
		{"canceled", Error{Cause: context.Canceled}, false, true, false, false},
		{"canceled before a connection", Error{Stage: StageConnect, Cause: context.Canceled}, false, false, false, false},
		{"cut short", Error{Status: 200, Cause: some}, false, true, true, true},
		{"server error", Error{Code: "InternalFailure", Status: 500, Stage: StageAnswered}, false, true, true, true},
		{"HTML 502", Error{Status: 502, Stage: StageAnswered, Cause: some}, false, true, true, true},
		{"redirect", Error{Status: 302, Stage: StageAnswered, Cause: some}, false, true, true, false},
		{"a proxy's refusal", Error{Status: 403, Stage: StageAnswered, Cause: some}, false, true, false, false},
		{"odd success", Error{Status: 200, Stage: StageAnswered, Cause: some}, false, true, false, false},
		{"refusal after a lost answer", Error{Code: CodeDisabled, Status: 409, Stage: StageAnswered, EarlierUnknown: true}, false, true, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &tt.failure
			got := fmt.Sprint(e.Throttled(), e.OutcomeUnknown(), e.Broken(), e.Temporary())
			if want := fmt.Sprint(tt.throttled, tt.unknown, tt.broken, tt.temporary); got != want {
				t.Errorf("throttled, unknown, broken, temporary: got %s, want %s", got, want)
			}
		})
	}
}

// TestStages: how far a call came is known.
func TestStages(t *testing.T) {
	client := func(config ClientConfig) *Client {
		config.Region = "cn-hangzhou"
		if config.Credentials == nil {
			config.Credentials = StaticCredentials(testCredentials)
		}
		c, err := NewClient(config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	untrusted := httptest.NewUnstartedServer(nil)
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	defer untrusted.Close()
	answered, _ := newServer(t, answerWith(409, `{"RequestId":"r","Code":"X"}`))
	silent, _ := newServer(t, raw(""))
	short, _ := newServer(t, raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"))
	hanging, arrived := hang(t)
	slow, _ := newServer(t, hanging)
	go func() { <-arrived }()

	for _, tt := range []struct {
		name  string
		c     *Client
		stage Stage
	}{
		{"refused connection", client(ClientConfig{Endpoint: closed.URL}), StageConnect},
		{"no such host", client(ClientConfig{Endpoint: "kms.invalid"}), StageConnect},
		{"failed handshake", client(ClientConfig{Endpoint: untrusted.URL}), StageConnect},
		{"no credentials", client(ClientConfig{Endpoint: closed.URL, Credentials: StaticCredentials(Credentials{})}), StageLocal},
		{"closed without a word", client(ClientConfig{Endpoint: silent.URL}), StageSent},
		{"cut short", client(ClientConfig{Endpoint: short.URL}), StageSent},
		{"too late", client(ClientConfig{Endpoint: slow.URL, Timeout: 50 * time.Millisecond}), StageSent},
		{"answered", client(ClientConfig{Endpoint: answered.URL}), StageAnswered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, ok := errors.AsType[*Error](encryptFixed(t.Context(), tt.c))
			if !ok || e.Stage != tt.stage {
				t.Errorf("got %v at stage %d, want %d", e, e.Stage, tt.stage)
			}
		})
	}
}

// TestUnreachableBehindFullPool: a call that never got a connection was not sent,
// whatever else is under way.
func TestUnreachableBehindFullPool(t *testing.T) {
	handler, arrived := hang(t)
	s, _ := newServer(t, handler)
	c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: s.URL, Credentials: StaticCredentials(testCredentials), MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- encryptFixed(ctx, c) }()
	<-arrived
	late, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if e, ok := errors.AsType[*Error](encryptFixed(late, c)); !ok || e.Stage != StageConnect || e.OutcomeUnknown() {
		t.Errorf("got %v", e)
	}
	cancel()
	if e, ok := errors.AsType[*Error](<-first); !ok || e.Stage != StageSent || !e.OutcomeUnknown() {
		t.Errorf("got %v", e)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "1.5": 0, "99999999999999": maxRetryAfter, "999999999999999999999": 0,
		"Tue, 01 Sep 2026 00:00:30 GMT": 30 * time.Second, "Mon, 31 Aug 2026 00:00:30 GMT": 0, "Tue, 01 Sep 2099 00:00:30 GMT": maxRetryAfter,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q is %v, want %v", value, got, want)
		}
	}
	_, c := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3")
		answerWith(429, `{"RequestId":"r","Code":"Rejected.Throttling","Message":"QPS Limit Exceeded"}`)(w, r)
	})
	if e, ok := errors.AsType[*Error](encryptFixed(t.Context(), c)); !ok || e.RetryAfter != 3*time.Second {
		t.Errorf("got %#v", e)
	}
}

// FuzzRetryAfter: whatever a server says, the wait is bounded.
func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"7", "-1", "99999999999999999999", "Tue, 01 Sep 2026 00:00:30 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if wait := retryAfter(value, someTime); wait < 0 || wait > maxRetryAfter {
			t.Errorf("%q is %v", value, wait)
		}
	})
}
