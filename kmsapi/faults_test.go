package kmsapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// mustNotLeak greps all that a program could do with an error.
func mustNotLeak(t *testing.T, err error) {
	t.Helper()
	var out bytes.Buffer
	for e := err; e != nil; e = errors.Unwrap(e) {
		fmt.Fprintf(&out, "%v\n%+v\n%#v\n%q\n", e, e, e, e)
		slog.New(slog.NewTextHandler(&out, nil)).Error("failed", "err", e)
		slog.New(slog.NewJSONHandler(&out, nil)).Error("failed", "err", e)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(plaintext))
	for _, secret := range []string{
		plaintext, encoded, encoded[:16], url.QueryEscape(encoded), testSecret, testToken, testToken[:8],
		url.QueryEscape(testToken), url.QueryEscape(url.QueryEscape(testToken)), "context-secret",
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q leaks in:\n%s", secret, out.String())
		}
	}
}

// raw answers with bytes that need not be HTTP.
func raw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, answer)
	}
}

func TestFaults(t *testing.T) {
	const html = "<html><h1>502 Bad Gateway</h1></html>"
	tests := []struct {
		name   string
		answer func(form string) http.HandlerFunc
		status int
		code   string
		says   string
	}{
		{"HTML 502", fixed(502, html), 502, "", "not the JSON object"},
		{"HTML 200", fixed(200, html), 200, "", "not the JSON object"},
		{"empty 200", fixed(200, ""), 200, "", "empty"},
		{"empty 503", fixed(503, ""), 503, "", "empty"},
		{"empty object", fixed(200, "{}"), 200, "", "RequestId in the answer is missing"},
		{"null", fixed(200, "null"), 200, "", "RequestId in the answer is missing"},
		{"array", fixed(200, "[]"), 200, "", "not the JSON object"},
		{"numeric code", fixed(400, `{"Code":404,"Message":"m","RequestId":"r"}`), 400, "", "not the JSON object"},
		{"numeric message", fixed(400, `{"Code":"X","Message":1}`), 400, "", "not the JSON object"},
		{"object as code", fixed(500, `{"Code":{},"RequestId":[]}`), 500, "", "not the JSON object"},
		{"odd denial detail", fixed(403, `{"Code":"Forbidden.NoPermission","Message":"m","RequestId":"r","AccessDeniedDetail":[1]}`), 403, CodeNoPermission, "m (HTTP 403"},
		{"no code", fixed(400, `{"Message":"m","RequestId":"r"}`), 400, "", "no error code"},
		{"code in a success", fixed(200, `{"Code":"Rejected.Disabled","RequestId":"r"}`), 200, "", "carries an error code"},
		{"wrong types", fixed(200, `{"RequestId":"r","KeyId":{"a":[]},"CiphertextBlob":true}`), 200, "", "documented form"},
		{"too long", fixed(200, `{"RequestId":"`+strings.Repeat("r", maxAnswer)+`"}`), 200, "", "longer than 1 MiB"},
		{"control characters", fixed(400, `{"Code":"X","Message":"a\u0000\u001b[31m\nb\u202e","RequestId":"r\n"}`), 400, "X", ": a[31mb (HTTP 400, request )"},
		{"long message", fixed(400, `{"Code":"X","RequestId":"r","Message":"`+strings.Repeat("é", 2000)+`"}`), 400, "X", ": " + strings.Repeat("é", maxMessage) + " (HTTP"},
		{
			"string to sign", func(form string) http.HandlerFunc {
				return answerWith(400, `{"Code":"SignatureDoesNotMatch","RequestId":"r","Message":"Specified signature is not matched with our calculation. server string to sign is:POST&%2F&`+url.QueryEscape(form)+`"}`)
			}, 400, "SignatureDoesNotMatch", "our calculation (string to sign withheld)",
		},
		{
			"string to sign by another name", func(form string) http.HandlerFunc {
				return answerWith(400, `{"Code":"IncompleteSignature","RequestId":"r","Message":"signed: POST&%2F&`+url.QueryEscape(form)+`"}`)
			}, 400, "IncompleteSignature", "withheld",
		},
		{
			"echo in the message", func(form string) http.HandlerFunc {
				values, _ := url.ParseQuery(form)
				return answerWith(400, `{"Code":"X","RequestId":"r","Message":"bad value `+values.Get("Plaintext")+`"}`)
			}, 400, "X", "withheld",
		},
		{
			"echo in the code", func(form string) http.HandlerFunc {
				values, _ := url.ParseQuery(form)
				return answerWith(400, `{"Code":"`+values.Get("Plaintext")[:20]+`","RequestId":"`+values.Get("Plaintext")[:20]+`","Message":"m"}`)
			}, 400, CodeWithheld, "Withheld: m (HTTP 400, request )",
		},
		{
			"echo of the end", func(form string) http.HandlerFunc {
				values, _ := url.ParseQuery(form)
				return answerWith(400, `{"Code":"X","RequestId":"r","Message":"near `+values.Get("Plaintext")[20:]+`"}`)
			}, 400, "X", "withheld",
		},
		{"echo of what is inside", fixed(400, `{"Code":"X","RequestId":"r","Message":"bad byte in \u0000`+plaintext[5:]+`"}`), 400, "X", "withheld"},
		{"echo of the encryption context", fixed(400, `{"Code":"X","RequestId":"r","Message":"tenant must not be context-secret"}`), 400, "X", "withheld"},
		{
			"echo in the request ID of the header", func(form string) http.HandlerFunc {
				values, _ := url.ParseQuery(form)
				return func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Acs-Request-Id", values.Get("Plaintext")[:20])
					answerWith(400, `{"Code":"X","Message":"m"}`)(w, r)
				}
			}, 400, "X", "request )",
		},
		{
			"echo in the status line", func(form string) http.HandlerFunc {
				return raw("HTTP/1.1 " + form + "\r\n\r\n")
			}, 0, "", "withheld",
		},
		{"not HTTP", func(string) http.HandlerFunc {
			return raw("220 smtp.example ESMTP\r\n")
		}, 0, "", "malformed HTTP"},
		{"truncated body", func(string) http.HandlerFunc {
			return raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"RequestId\":")
		}, 200, "", "unexpected EOF"},
		{"closed without a word", func(string) http.HandlerFunc { return raw("") }, 0, "", "EOF"},
		{"endless header", func(string) http.HandlerFunc {
			return raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxAnswerHeader) + "\r\n\r\n")
		}, 0, "", "header"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s *server
			s, c := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				calls := s.calls()
				tt.answer(calls[len(calls)-1].Encode())(w, r)
			})
			err := encryptFixed(t.Context(), c)
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("got %#v, want an *Error", err)
			}
			if e.Operation != "Encrypt" || e.Status != tt.status || e.Code != tt.code || !strings.Contains(e.Error(), tt.says) {
				t.Errorf("got  %v (status %d, code %q)\nwant %q (status %d, code %q)", e, e.Status, e.Code, tt.says, tt.status, tt.code)
			}
			mustNotLeak(t, err)
		})
	}
}

func fixed(status int, body string) func(string) http.HandlerFunc {
	return func(string) http.HandlerFunc { return answerWith(status, body) }
}

// TestScrub: a secret is recognised raw, escaped, escaped twice and cut short.
func TestScrub(t *testing.T) {
	const context = `{"tenant name":"a","b":"c"}`
	once := url.QueryEscape(context)
	secrets := secretsOf(url.Values{
		"EncryptionContext": {context}, "ImportToken": {"ab"}, "KeyId": {"key-1"}, "Plaintext": {base64.StdEncoding.EncodeToString([]byte("4711"))},
	})
	for text, withheld := range map[string]bool{
		"no such key key-1": false, "context " + context: true, "context " + once: true, "context " + url.QueryEscape(once): true,
		context[:20]: true, context[8:]: true, context[4:19]: false, "token ab": true, "PIN 4711": true, "PIN 4\x00711": true, "": false,
		strings.Repeat("é", maxMessage-1) + context: true,
	} {
		if got := scrub(text, secrets); withheld != (got != text) {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

// FuzzScrub: no part of a plaintext that tells anything comes through, encoded or
// not.
func FuzzScrub(f *testing.F) {
	f.Add("The parameter 4111 1111 1111 1111 is not valid", []byte("4111 1111 1111 1111"))
	f.Add("near YXR0YWNrIGF0IGRhd24sIHNhaWQ", []byte(plaintext))
	f.Add("server string to sign is:POST&%2F&Plaintext%3D", []byte(plaintext))
	f.Add(strings.Repeat("é\x00", 2000)+plaintext, []byte(plaintext))
	f.Add(withheld, []byte(withheld))
	f.Fuzz(func(t *testing.T, text string, plain []byte) {
		encoded := base64.StdEncoding.EncodeToString(plain)
		got := scrub(text, secretsOf(url.Values{"Plaintext": {encoded}}))
		if got == withheld {
			return
		}
		if runes := []rune(got); len(runes) > maxMessage || printable(got) != got {
			t.Errorf("%q is not fit for a log", got)
		}
		for _, form := range []string{printable(string(plain)), encoded, url.QueryEscape(encoded)} {
			for i := range len(form) - telling + 1 {
				if strings.Contains(got, form[i:i+telling]) {
					t.Errorf("%q shows %q", got, form[i:i+telling])
				}
			}
		}
	})
}

func TestReset(t *testing.T) {
	_, c := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
			t.Error(err)
		}
		conn.Close()
	})
	err := encryptFixed(t.Context(), c)
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Fatalf("got %v, want a *net.OpError inside", err)
	}
	if e, ok := errors.AsType[*Error](err); !ok || !e.OutcomeUnknown() {
		t.Errorf("got %#v, want an unknown outcome", err)
	}
	mustNotLeak(t, err)
}

func TestUnreachable(t *testing.T) {
	s, c := newServer(t, answerWith(200, ""))
	s.Close()
	err := encryptFixed(t.Context(), c)
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Fatalf("got %v, want a *net.OpError inside", err)
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		t.Errorf("a *url.Error is inside: %v", err)
	}
	mustNotLeak(t, err)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308, 304} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Error("the redirect was followed")
			}))
			defer elsewhere.Close()
			s, c := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", elsewhere.URL+"/?secret")
				w.WriteHeader(status)
			})
			err := encryptFixed(t.Context(), c)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Status != status || e.Code != "" || !strings.Contains(e.Error(), "redirect") {
				t.Fatalf("got %v", err)
			}
			if n := len(s.calls()); n != 1 {
				t.Errorf("%d requests", n)
			}
			mustNotLeak(t, err)
		})
	}
}

// hang holds requests until the client hangs up, and tells of each arrival.
func hang(t *testing.T) (http.HandlerFunc, <-chan struct{}) {
	arrived := make(chan struct{})
	return func(_ http.ResponseWriter, r *http.Request) {
		select {
		case arrived <- struct{}{}:
		case <-t.Context().Done():
		}
		<-r.Context().Done()
	}, arrived
}

func TestCancelMidCall(t *testing.T) {
	handler, arrived := hang(t)
	_, c := newServer(t, handler)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-arrived
		cancel(errors.New("the caller went away"))
	}()
	err := encryptFixed(ctx, c)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 0 || !e.OutcomeUnknown() {
		t.Errorf("got %#v", err)
	}
	mustNotLeak(t, err)
}

func TestCancelMidAnswer(t *testing.T) {
	arrived := make(chan struct{})
	_, c := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"RequestId":`)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if err := encryptFixed(ctx, c); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
}

func TestDeadlines(t *testing.T) {
	t.Run("of the context", func(t *testing.T) {
		handler, arrived := hang(t)
		_, c := newServer(t, handler)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		go func() { <-arrived }()
		err := encryptFixed(ctx, c)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want context.DeadlineExceeded", err)
		}
		mustNotLeak(t, err)
	})
	t.Run("of the client", func(t *testing.T) {
		handler, arrived := hang(t)
		s, _ := newServer(t, handler)
		c, err := NewClient(ClientConfig{
			Region: "cn-hangzhou", Endpoint: s.URL, Credentials: StaticCredentials(testCredentials), Timeout: 50 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() { <-arrived }()
		if err := encryptFixed(t.Context(), c); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want context.DeadlineExceeded", err)
		}
	})
	t.Run("already over", func(t *testing.T) {
		s, c := newServer(t, answerWith(200, ackAnswer))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := encryptFixed(ctx, c); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
		if n := len(s.calls()); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
	})
}

func TestNoCredentials(t *testing.T) {
	s, _ := newServer(t, answerWith(200, ackAnswer))
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", testKeyID)
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", testSecret)
	c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: s.URL, Credentials: StaticCredentials(Credentials{})})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := encryptFixed(t.Context(), c); err == nil || !strings.Contains(err.Error(), "lack an AccessKey") {
		t.Errorf("got %v", err)
	}
	if n := len(s.calls()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// FuzzAnswer gives every operation any answer: a result that keeps its promises
// or an *Error, and never a panic.
func FuzzAnswer(f *testing.F) {
	for _, op := range operations {
		f.Add(200, []byte(op.answer))
	}
	f.Add(400, []byte(`{"Code":404}`))
	f.Add(302, []byte(`{}`))
	f.Add(500, []byte(`{"Code":"InternalFailure","Message":"m","RequestId":"r"}`))
	f.Add(200, []byte(`{"RequestId":1e999,"KeyMetadata":[]}`))
	c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: "http://kms.invalid", Credentials: StaticCredentials(testCredentials)})
	if err != nil {
		f.Fatal(err)
	}
	var answer http.Response
	var body []byte
	c.transport.RegisterProtocol("http", roundTripper(func(*http.Request) (*http.Response, error) {
		resp := answer
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return &resp, nil
	}))
	f.Fuzz(func(t *testing.T, status int, data []byte) {
		answer, body = http.Response{StatusCode: status, Header: http.Header{}}, data
		for _, op := range operations {
			if _, err := op.call(t.Context(), c); err != nil {
				e, ok := errors.AsType[*Error](err)
				if !ok || e.Operation != op.name || e.Code == "" && e.Cause == nil || len(e.Message) > 4*maxMessage {
					t.Fatalf("%s: %#v", op.name, err)
				}
			} else if status/100 != 2 {
				t.Fatalf("%s: status %d is a success", op.name, status)
			}
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
