package serve

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// socketDir returns a directory whose path is short enough for a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestListenHasItsModeFromTheStart(t *testing.T) {
	dir := socketDir(t)
	for _, mode := range []os.FileMode{0o600, 0o660, 0o666} {
		path := filepath.Join(dir, mode.String())
		listener, err := Listen(t.Context(), SocketConfig{Path: path, Mode: mode, GID: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode || info.Mode().Type() != os.ModeSocket {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, mode)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestListenReplacesOnlyTheDead(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "s")
	config := SocketConfig{Path: path, Mode: 0o600, GID: -1}
	alive, err := Listen(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), config); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("over a live socket: %v", err)
	}
	alive.Close() // the name stays, as after a crash
	next, err := Listen(t.Context(), config)
	if err != nil {
		t.Fatalf("over a dead socket: %v", err)
	}
	next.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), SocketConfig{Path: file, Mode: 0o600, GID: -1}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a file: %v", err)
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "precious" {
		t.Errorf("the file was touched: %q, %v", content, err)
	}
}

// TestEveryKindHasACode also holds that no two kinds look alike from outside.
func TestEveryKindHasACode(t *testing.T) {
	seen := map[codes.Code]failure.Kind{}
	for _, kind := range failure.Kinds() {
		f := failure.New(kind, "A_REASON", "it went wrong").WithHint("do this")
		f.RequestID = "r-1"
		s := status.Convert(Status(f))
		if other, twice := seen[s.Code()]; twice || s.Code() == codes.OK || s.Code() == codes.Unknown {
			t.Errorf("kind %v has code %v, as has %v", kind, s.Code(), other)
		}
		seen[s.Code()] = kind
		info, ok := s.Details()[0].(*errdetails.ErrorInfo)
		if !ok || info.GetReason() != "A_REASON" || info.GetDomain() != ErrorDomain ||
			info.GetMetadata()["hint"] != "do this" || info.GetMetadata()["request_id"] != "r-1" {
			t.Errorf("kind %v carries %v", kind, s.Details())
		}
	}
	if code := status.Code(Status(errors.New("x"))); code != codes.Internal {
		t.Errorf("an error without a kind has code %v", code)
	}
}

// health is a service that tells what it was asked by whom.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	check func(context.Context) error
}

func (h health) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return &grpc_health_v1.HealthCheckResponse{}, h.check(ctx)
}

// nobody observes the calls.
func nobody(string, error, time.Duration) {}

// ask starts a server with one handler on a socket and calls it.
func ask(t *testing.T, check func(context.Context) error) error {
	t.Helper()
	return askWith(t.Context(), t, check, nobody)
}

func askWith(ctx context.Context, t *testing.T, check func(context.Context) error, observe Observe) error {
	t.Helper()
	path := filepath.Join(socketDir(t), "s")
	listener, err := Listen(t.Context(), SocketConfig{Path: path, Mode: 0o600, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(ServerConfig{Log: slog.New(slog.DiscardHandler), Observe: observe})
	grpc_health_v1.RegisterHealthServer(server, health{check: check})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() { server.Stop(); <-done }()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

func TestCallerComesFromTheKernel(t *testing.T) {
	var got authz.Caller
	err := ask(t, func(ctx context.Context) (err error) {
		got, err = CallerOf(ctx)
		return err
	})
	want := authz.Caller{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid())}
	if err != nil || got.UID != want.UID || got.GID != want.GID || got.PID != want.PID || got.User != authz.UserName(want.UID) {
		t.Errorf("caller %+v, %v; want %v", got, err, want)
	}
}

// TestConnectionsPerUID: what is beyond the share is closed, and a closed
// connection gives its place free.
func TestConnectionsPerUID(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	listener, err := Listen(t.Context(), SocketConfig{Path: path, Mode: 0o600, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	refused := 0
	limited := LimitPerUID(listener, func(string) { refused++ })
	accepted := make(chan net.Conn, maxConnections)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := limited.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial := func() net.Conn {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for range maxConnections {
		dial()
	}
	var first net.Conn
	for i := range maxConnections {
		if conn := <-accepted; i == 0 {
			first = conn
		}
	}
	if _, err := dial().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one connection too many: %v", err)
	}
	first.Close()
	first.Close() // counts once
	dial()
	(<-accepted).Close()
	listener.Close()
	<-done
	if refused != 1 {
		t.Errorf("%d connections were counted as refused", refused)
	}
}

// TestHeadersAreBounded: headers are kept for each of many streams, so an
// ordinary account must not send large ones.
func TestHeadersAreBounded(t *testing.T) {
	called := false
	err := askWith(metadata.AppendToOutgoingContext(t.Context(), "x", strings.Repeat("x", 2*maxHeader)), t, func(context.Context) error {
		called = true
		return nil
	}, nobody)
	if err == nil || called {
		t.Errorf("%d bytes of headers were taken: %v", 2*maxHeader, err)
	}
}

func TestCallerWithoutCredentialsIsNobody(t *testing.T) {
	if caller, err := CallerOf(t.Context()); err == nil {
		t.Errorf("a call from nowhere has the caller %v", caller)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if caller, err := PeerOf(a, Units{}); err == nil {
		t.Errorf("a pipe has the caller %v", caller)
	}
}

func TestPanicEndsOneCall(t *testing.T) {
	var observed error
	err := askWith(t.Context(), t, func(context.Context) error { panic("secret value") }, func(_ string, err error, _ time.Duration) { observed = err })
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret value") {
		t.Errorf("a panic became %v", err)
	}
	if f := failure.From(observed); f == nil || f.Reason != "PANIC" {
		t.Errorf("a panic was observed as %v", observed)
	}
}

// TestCallsAreObserved with the error of the core, which knows more than what goes
// over the socket.
func TestCallsAreObserved(t *testing.T) {
	for _, want := range []error{nil, failure.New(failure.Denied, "NO_GRANT", "no")} {
		observed := 0
		_ = askWith(t.Context(), t, func(context.Context) error { return want }, func(operation string, err error, took time.Duration) {
			if observed++; operation != "Check" || !errors.Is(err, want) || took <= 0 {
				t.Errorf("observed %s, %v after %v; want %v", operation, err, took, want)
			}
		})
		if observed != 1 {
			t.Errorf("one call was observed %d times", observed)
		}
	}
}

// TestHTTP: a server for metrics answers on a socket, and large headers are
// refused.
func TestHTTP(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	listener, err := Listen(t.Context(), SocketConfig{Path: path, Mode: 0o600, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	server := NewHTTPServer(HTTPConfig{
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), Log: slog.New(slog.DiscardHandler), MaxHeader: maxHeader, AnswerTime: time.Second,
	})
	done := make(chan error, 1)
	go func() { done <- server.Serve(LimitPerUID(listener, func(string) {})) }()
	defer func() { server.Close(); <-done }()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}
	defer transport.CloseIdleConnections()
	for size, want := range map[int]int{1: http.StatusOK, 4 * maxHeader: http.StatusRequestHeaderFieldsTooLarge} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X", strings.Repeat("x", size))
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%d bytes of headers: %s", size, resp.Status)
		}
	}
}
