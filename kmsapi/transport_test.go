package kmsapi

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestManyCallersFewConnections(t *testing.T) {
	const callers = 64
	var connections atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		// Each caller must get the answer to its own request.
		fmt.Fprintf(w, `{"RequestId":"r","KeyId":"k","CiphertextBlob":%q}`, "of "+r.PostForm.Get("Plaintext"))
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: s.URL, Credentials: StaticCredentials(testCredentials), MaxConns: callers})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for j := range 20 {
				plain := []byte(fmt.Sprintf("%03d-%02d", i, j))
				resp, err := c.Encrypt(t.Context(), EncryptRequest{KeyID: "k", Plaintext: plain})
				if err != nil {
					t.Error(err)
					return
				}
				f := fields{}
				if got := f.base64("blob", strings.TrimPrefix(resp.CiphertextBlob, "of ")); string(got) != string(plain) {
					t.Errorf("caller of %s got the answer for %s", plain, got)
				}
			}
		})
	}
	wg.Wait()
	if n := connections.Load(); n > callers {
		t.Errorf("%d connections for %d callers", n, callers)
	}
}

// dyingServer answers the first request on each connection and closes the
// connection when it has read the second, as a gateway does that reaps idle
// connections. It returns its address and a counter of requests.
func dyingServer(t *testing.T, answer string) (string, *atomic.Int32) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	var wg sync.WaitGroup
	serve := func(conn net.Conn) {
		defer conn.Close()
		r := bufio.NewReader(conn)
		for n := range 2 {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			requests.Add(1)
			if n == 0 {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
			}
		}
	}
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	return listener.Addr().String(), &requests
}

// TestDeadConnection: a call whose pooled connection dies under it fails, and is
// not replayed by net/http: its nonce may have been seen, and a replay would be
// refused for that. Who repeats it signs anew.
func TestDeadConnection(t *testing.T) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			address, requests := dyingServer(t, op.answer)
			c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: "http://" + address, Credentials: StaticCredentials(testCredentials)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			if _, err := op.call(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			_, err = op.call(t.Context(), c)
			if n := requests.Load(); err == nil || n != 2 {
				t.Errorf("got %v after %d requests, want one attempt and a failure", err, n)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	var calls atomic.Int32
	start := func(t *testing.T, config *tls.Config) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			fmt.Fprint(w, `{"RequestId":"r","KeyId":"k","CiphertextBlob":"b"}`)
		}))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.TLS = config
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	encrypt := func(t *testing.T, endpoint string, roots *x509.CertPool) error {
		calls.Store(0)
		c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: endpoint, RootCAs: roots, Credentials: StaticCredentials(testCredentials)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = encryptFixed(t.Context(), c)
		if err != nil && calls.Load() != 0 {
			t.Error("the request was sent all the same")
		}
		return err
	}
	rootsOf := func(s *httptest.Server) *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AddCert(s.Certificate())
		return pool
	}

	t.Run("own roots", func(t *testing.T) {
		s := start(t, nil)
		if err := encrypt(t, s.URL, rootsOf(s)); err != nil {
			t.Error(err)
		}
		if err := encrypt(t, s.Listener.Addr().String(), rootsOf(s)); err != nil {
			t.Errorf("without a scheme: %v", err)
		}
	})
	t.Run("unknown authority", func(t *testing.T) {
		s := start(t, nil)
		err := encrypt(t, s.URL, nil)
		if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
			t.Errorf("got %v, want x509.UnknownAuthorityError", err)
		}
		mustNotLeak(t, err)
	})
	t.Run("another name", func(t *testing.T) {
		s := start(t, nil)
		_, port, err := net.SplitHostPort(s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		err = encrypt(t, "localhost:"+port, rootsOf(s))
		if _, ok := errors.AsType[x509.HostnameError](err); !ok {
			t.Errorf("got %v, want x509.HostnameError", err)
		}
	})
	t.Run("TLS 1.1", func(t *testing.T) {
		s := start(t, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		if err := encrypt(t, s.URL, rootsOf(s)); err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("plain HTTP must be asked for", func(t *testing.T) {
		s, _ := newServer(t, answerWith(200, ackAnswer))
		err := encrypt(t, s.Listener.Addr().String(), nil)
		if err == nil || !strings.Contains(err.Error(), "does not look like a TLS handshake") {
			t.Errorf("got %v", err)
		}
		if n := len(s.calls()); n != 0 {
			t.Errorf("%d requests were sent in the clear", n)
		}
		mustNotLeak(t, err)
	})
}

// TestProxyVariables: the SDK reads them too, as patterns, and quotes them.
func TestProxyVariables(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		t.Setenv(name, "http://user:password@proxy.invalid:1%zz")
	}
	t.Setenv("NO_PROXY", "(")
	t.Setenv("no_proxy", "(")
	_, c := newServer(t, answerWith(200, `{"RequestId":"r","KeyId":"k","CiphertextBlob":"b"}`))
	if err := encryptFixed(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func TestProxyForHTTPSAlone(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy.example:1")
	t.Setenv("HTTPS_PROXY", "http://proxy.example:2")
	t.Setenv("NO_PROXY", "direct.example")
	choose := newTransport(nil, 1).Proxy
	for target, want := range map[string]string{
		"https://kms.example/": "http://proxy.example:2", "http://kms.example/": "<nil>", "https://direct.example/": "<nil>",
	} {
		if u, err := choose(httptest.NewRequest(http.MethodPost, target, nil)); fmt.Sprint(u) != want || err != nil {
			t.Errorf("%s goes through %v, %v, want %s", target, u, err, want)
		}
	}
}

func TestNewClientRefuses(t *testing.T) {
	good := ClientConfig{Region: "cn-hangzhou", Credentials: StaticCredentials(testCredentials)}
	if _, err := NewClient(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ClientConfig){
		"no region":      func(c *ClientConfig) { c.Region = "" },
		"odd region":     func(c *ClientConfig) { c.Region = "cn.evil.example/" },
		"no credentials": func(c *ClientConfig) { c.Credentials = nil },
		"odd endpoint":   func(c *ClientConfig) { c.Endpoint = "https://kms.example/path" },
	} {
		t.Run(name, func(t *testing.T) {
			config := good
			change(&config)
			if _, err := NewClient(config); err == nil {
				t.Error("accepted")
			}
		})
	}
	t.Run("DEBUG=sdk", func(t *testing.T) {
		t.Setenv("DEBUG", "http,sdk")
		if _, err := NewClient(good); err == nil {
			t.Error("accepted")
		}
	})
}
