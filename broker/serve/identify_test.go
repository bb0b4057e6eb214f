package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// httpDoor serves with shares until the test ends.
type httpDoor struct {
	path    string
	shares  *Shares
	refused atomic.Int64
	server  *HTTPServer
	log     lockedBuffer
}

// lockedBuffer is a log that goroutines share.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// String implements fmt.Stringer.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func openHTTP(t *testing.T, named bool, handle func(*httpDoor, http.ResponseWriter, *http.Request), changes ...func(*HTTPServer)) *httpDoor {
	t.Helper()
	d := &httpDoor{path: filepath.Join(socketDir(t), "s")}
	d.shares = NewShares(t.Context(), NewRoom(), func(authz.Caller) bool { return named }, "", func(string) { d.refused.Add(1) })
	listener, err := Listen(t.Context(), SocketConfig{Path: d.path, Mode: 0o600, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	d.server = NewHTTPServer(HTTPConfig{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(d, w, r) }),
		Log:     slog.New(slog.NewTextHandler(&d.log, nil)), MaxHeader: maxHeader, AnswerTime: time.Minute,
	})
	for _, change := range changes {
		change(d.server)
	}
	done := make(chan error, 1)
	go func() { done <- d.server.Serve(d.shares.Identify(LimitPerUID(listener, d.shares.refused), Units{})) }()
	t.Cleanup(func() {
		d.server.Stop(time.Minute)
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if len(d.shares.used) != 0 {
			t.Errorf("shares are used after the end: %v", d.shares.used)
		}
	})
	return d
}

func (d *httpDoor) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: maxCalls,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.path)
		},
	}}
}

// TestHTTPCallers: the handler knows the process that connected, and calls beyond
// the share are refused.
func TestHTTPCallers(t *testing.T) {
	begun, proceed := make(chan struct{}, maxStrangerCalls), make(chan struct{})
	d := openHTTP(t, false, func(d *httpDoor, w http.ResponseWriter, r *http.Request) {
		caller, leave, err := d.shares.EnterPeer(r.Context())
		if err != nil {
			if failure.From(err).Reason != "CALLS" {
				t.Error(err)
			}
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		defer leave()
		if caller.UID != uint32(os.Getuid()) || caller.PID != int32(os.Getpid()) || caller.App != "" {
			t.Errorf("%v", caller)
		}
		if r.URL.Path == "/wait" {
			begun <- struct{}{}
			<-proceed
		}
	})
	client := d.client()
	defer client.CloseIdleConnections()
	get := func(path string) (int, error) {
		resp, err := client.Get("http://localhost" + path)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	ended := make(chan error, maxStrangerCalls)
	for range maxStrangerCalls {
		go func() {
			_, err := get("/wait")
			ended <- err
		}()
	}
	for range maxStrangerCalls {
		<-begun
	}
	if status, err := get("/"); status != http.StatusTooManyRequests || err != nil || d.refused.Load() != 1 {
		t.Errorf("one call too many: %d, %v; %d were counted", status, err, d.refused.Load())
	}
	close(proceed)
	for range maxStrangerCalls {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if status, err := get("/"); status != http.StatusOK || err != nil {
		t.Errorf("afterwards: %d, %v", status, err)
	}
}

// TestHTTPConnections of strangers are shared out as those of other doors, whether
// they send anything or not.
func TestHTTPConnections(t *testing.T) {
	s := NewShares(t.Context(), NewRoom(), func(authz.Caller) bool { return false }, "", func(string) {})
	here, there := net.Pipe()
	defer there.Close()
	listener := &pipes{here}
	strangers := s.Strangers(listener)
	var conns []net.Conn
	for range maxStrangers {
		conn, err := strangers.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	if _, err := s.Strangers(&once{pipes: listener}).Accept(); err == nil {
		t.Error("one connection too many")
	}
	for _, conn := range conns {
		conn.Close()
	}
	if len(s.used) != 0 {
		t.Errorf("%v", s.used)
	}
}

// pipes accepts one connection over and over.
type pipes struct{ conn net.Conn }

func (p *pipes) Accept() (net.Conn, error) { return p.conn, nil }
func (*pipes) Close() error                { return nil }
func (*pipes) Addr() net.Addr              { return &net.TCPAddr{} }

// once accepts it once.
type once struct {
	*pipes
	over bool
}

func (o *once) Accept() (net.Conn, error) {
	if o.over {
		return nil, net.ErrClosed
	}
	o.over = true
	return o.pipes.Accept()
}

// TestWithoutPeer: a request that did not come through Identify is nobody's.
func TestWithoutPeer(t *testing.T) {
	s := NewShares(t.Context(), NewRoom(), func(authz.Caller) bool { return true }, "", func(string) {})
	if caller, _, err := s.EnterPeer(t.Context()); err == nil {
		t.Errorf("the caller is %v", caller)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	conn := &peerConn{Conn: a, listener: &identified{shares: s}}
	if caller, _, err := s.EnterPeer(withConn(t.Context(), conn)); err == nil {
		t.Errorf("of a pipe it is %v", caller)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a pipe was read")
	}
}

// TestSlowBody: whose request does not come loses its connection, and its place is
// free.
func TestSlowBody(t *testing.T) {
	left := make(chan struct{})
	d := openHTTP(t, true, func(d *httpDoor, _ http.ResponseWriter, r *http.Request) {
		_, leave, err := d.shares.EnterPeer(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			t.Error("the body came")
		}
		leave()
		close(left)
	}, func(s *HTTPServer) { s.ReadTimeout = 100 * time.Millisecond })
	conn, err := net.Dial("unix", d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\na"); err != nil {
		t.Fatal(err)
	}
	<-left
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the connection is still open: %v", err)
	}
}

// TestHTTPPanic ends one connection, and the log has the place and not the value.
func TestHTTPPanic(t *testing.T) {
	d := openHTTP(t, true, func(*httpDoor, http.ResponseWriter, *http.Request) { panic("secret value") })
	client := d.client()
	defer client.CloseIdleConnections()
	for range 2 {
		if resp, err := client.Get("http://localhost/"); err == nil {
			resp.Body.Close()
			t.Errorf("answered %s", resp.Status)
		}
	}
	if out := d.log.String(); strings.Contains(out, "secret value") || strings.Count(out, "panic in a request") != 2 || !strings.Contains(out, "TestHTTPPanic") {
		t.Errorf("the log is\n%s", out)
	}
}

// TestHTTPComplaints: who can connect cannot fill the log.
func TestHTTPComplaints(t *testing.T) {
	var out bytes.Buffer
	c := complaints{slog.New(slog.NewTextHandler(&out, nil))}
	for _, line := range []string{"http: TLS handshake error from 127.0.0.1:5: EOF\n", "http: Accept error: too many open files; retrying\n"} {
		if n, err := c.Write([]byte(line)); n != len(line) || err != nil {
			t.Error(n, err)
		}
	}
	if got := out.String(); strings.Contains(got, "handshake") || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "too many open files") {
		t.Errorf("%s", got)
	}
}

// TestStopWaitsForHandlers also when their time is over.
func TestStopWaitsForHandlers(t *testing.T) {
	begun, ended := make(chan struct{}), false
	d := openHTTP(t, true, func(_ *httpDoor, _ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		ended = true
	})
	client := d.client()
	go func() {
		if resp, err := client.Get("http://localhost/"); err == nil {
			resp.Body.Close()
		}
	}()
	<-begun
	d.server.Stop(time.Millisecond)
	if !ended {
		t.Error("a handler is still running")
	}
}

// TestApplicationsAreNotRoot: they have shares of their own.
func TestApplicationsAreNotRoot(t *testing.T) {
	s := NewShares(t.Context(), NewRoom(), func(authz.Caller) bool { return true }, "", func(string) {})
	var leaves []func()
	for range maxCalls {
		leave, err := s.Enter(authz.Caller{App: "web"})
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	if _, err := s.Enter(authz.Caller{App: "web"}); failure.KindOf(err) != failure.Throttled {
		t.Errorf("one call too many: %v", err)
	}
	for _, caller := range []authz.Caller{{}, {App: "batch"}} {
		leave, err := s.Enter(caller)
		if err != nil {
			t.Errorf("%v: %v", caller, err)
			continue
		}
		leave()
		leave()
	}
	for _, leave := range leaves {
		leave()
	}
	if len(s.used) != 0 {
		t.Errorf("%v", s.used)
	}
}
