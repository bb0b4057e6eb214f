package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/kmsbroker/kmsbroker/broker/authz"
)

// sharedDoor is a server with shares.
type sharedDoor struct {
	path    string
	shares  *Shares
	refused map[string]*atomic.Int64
}

// openShared serves check until the test ends. The present user is named or a
// stranger.
func openShared(t *testing.T, named bool, check func(context.Context) error) *sharedDoor {
	t.Helper()
	d := &sharedDoor{
		path:    filepath.Join(socketDir(t), "s"),
		refused: map[string]*atomic.Int64{RefusedCall: {}, RefusedConnection: {}},
	}
	refuse := func(what string) { d.refused[what].Add(1) }
	d.shares = NewShares(t.Context(), NewRoom(), func(authz.Caller) bool { return named }, "grpc.health.v1.Health", refuse)
	d.shares.callTime = time.Second
	listener, err := Listen(t.Context(), SocketConfig{Path: d.path, Mode: 0o600, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(ServerConfig{Log: slog.New(slog.DiscardHandler), Observe: nobody, Shares: d.shares})
	grpc_health_v1.RegisterHealthServer(server, health{check: check})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
		if len(d.shares.used) != 0 {
			t.Errorf("shares are used after the end: %v", d.shares.used)
		}
	})
	return d
}

func (d *sharedDoor) dial(t *testing.T) grpc_health_v1.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+d.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

// TestCallsOfAUserAreBounded, over all connections, and a refusal says so before
// anything of the call is read.
func TestCallsOfAUserAreBounded(t *testing.T) {
	for _, test := range []struct {
		named bool
		most  int
	}{{true, maxCalls}, {false, maxStrangerCalls}} {
		t.Run(fmt.Sprint(test.named), func(t *testing.T) {
			begun, proceed := make(chan struct{}, test.most), make(chan struct{})
			d := openShared(t, test.named, func(context.Context) error {
				begun <- struct{}{}
				<-proceed
				return nil
			})
			d.shares.callTime = time.Minute
			ended := make(chan error, test.most)
			var c grpc_health_v1.HealthClient
			for i := range test.most {
				if i%maxStreams == 0 {
					c = d.dial(t)
				}
				go func(c grpc_health_v1.HealthClient) {
					_, err := c.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
					ended <- err
				}(c)
			}
			for range test.most {
				<-begun
			}
			c = d.dial(t)
			_, err := c.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			s := status.Convert(err)
			if s.Code() != codes.ResourceExhausted || len(s.Details()) != 1 || s.Details()[0].(*errdetails.ErrorInfo).GetReason() != "CALLS" {
				t.Errorf("one call too many: %v %v", err, s.Details())
			}
			if n := d.refused[RefusedCall].Load(); n != 1 {
				t.Errorf("%d calls were counted as refused", n)
			}
			close(proceed)
			for range test.most {
				if err := <-ended; err != nil {
					t.Errorf("a call within the share: %v", err)
				}
			}
			if _, err := c.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
				t.Errorf("after the others: %v", err)
			}
		})
	}
}

// TestStrangersShareConnections: all users without a grant have so many together,
// and a user with one has its place all the same.
func TestStrangersShareConnections(t *testing.T) {
	refused := 0
	s := NewShares(t.Context(), NewRoom(), func(c authz.Caller) bool { return c.UID == 7 }, "x", func(string) { refused++ })
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	var first net.Conn
	for uid := range uint32(maxStrangers) {
		conn, err := s.connect(a, authz.Caller{UID: 1000 + uid})
		if err != nil {
			t.Fatalf("stranger %d: %v", uid, err)
		}
		if first == nil {
			first = conn
		}
	}
	if _, err := s.connect(a, authz.Caller{UID: 5}); err == nil || refused != 1 {
		t.Errorf("one stranger too many: %v, refused %d", err, refused)
	}
	if _, err := s.connect(a, authz.Caller{UID: 7}); err != nil || s.used[owner{who: authz.Identity{UID: 7}}] == nil {
		t.Errorf("a user with a grant: %v", err)
	}
	first.Close()
	first.Close() // counts once
	if _, err := s.connect(a, authz.Caller{UID: 5}); err != nil {
		t.Errorf("after one left: %v", err)
	}
	if _, err := s.connect(a, authz.Caller{UID: 5}); err == nil {
		t.Error("a place was given twice")
	}
}

// TestEverybodyTogether: an account with a grant to its group can be 65,536 uids. The
// door has an end all the same.
func TestEverybodyTogether(t *testing.T) {
	refused := map[string]int{}
	s := NewShares(t.Context(), NewRoom(), func(authz.Caller) bool { return true }, "x", func(what string) { refused[what]++ })
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if s.room.most < 100 {
		t.Fatalf("room for %d connections", s.room.most)
	}
	s.room.most = 5000
	for uid := range uint32(s.room.most) {
		if _, err := s.connect(a, authz.Caller{UID: uid}); err != nil {
			t.Fatalf("uid %d: %v", uid, err)
		}
	}
	if _, err := s.connect(a, authz.Caller{UID: 1 << 20}); err == nil || refused[RefusedConnection] != 1 {
		t.Errorf("one too many: %v", err)
	}
	for uid := range uint32(maxAllCalls) {
		if err := s.enter(owner{who: authz.Identity{UID: uid}}); err != nil {
			t.Fatalf("call %d: %v", uid, err)
		}
	}
	if err := s.enter(owner{who: authz.Identity{UID: 1 << 20}}); err == nil || refused[RefusedCall] != 1 {
		t.Errorf("one call too many: %v", err)
	}
	s.leave(owner{who: authz.Identity{UID: 1}})
	if err := s.enter(owner{who: authz.Identity{UID: 1 << 20}}); err != nil {
		t.Errorf("after one ended: %v", err)
	}
}

// TestResetGivesNothingBack: a caller who resets his calls has their handlers on his
// account until they have ended.
func TestResetGivesNothingBack(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	d := openShared(t, true, func(context.Context) error {
		if calls.Add(1) == 1 {
			close(begun)
			<-proceed
		}
		return nil
	})
	ctx, reset := context.WithCancel(t.Context())
	called := make(chan error, 1)
	go func() {
		_, err := d.dial(t).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		called <- err
	}()
	<-begun
	reset()
	<-called
	c := d.dial(t)
	for range 10 { // by now the reset has arrived
		if _, err := c.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	d.shares.mu.Lock()
	n := d.shares.all
	d.shares.mu.Unlock()
	if n < 1 {
		t.Error("no call is on account while one is handled")
	}
	close(proceed)
}

// rawCall begins a call whose message has size bytes, without sending it.
func rawCall(t *testing.T, path string, size uint32) (*http2.Framer, io.Closer) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var headers bytes.Buffer
	encoder := hpack.NewEncoder(&headers)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/grpc.health.v1.Health/Check"}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			t.Fatal(err)
		}
	}
	prefix := binary.BigEndian.AppendUint32([]byte{0}, size)
	err = errors.Join(framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true}),
		framer.WriteData(1, false, prefix))
	if err != nil {
		t.Fatal(err)
	}
	return framer, conn
}

// answer reads the status of the call.
func answer(framer *http2.Framer) (code string, err error) {
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "", err
		}
		if headers, ok := frame.(*http2.MetaHeadersFrame); ok {
			for _, field := range headers.Fields {
				if field.Name == "grpc-status" {
					return field.Value, nil
				}
			}
		}
	}
}

// TestSlowSender: a call whose message does not come is ended, and its place is
// free for others.
func TestSlowSender(t *testing.T) {
	d := openShared(t, true, func(context.Context) error { return nil })
	slow, conn := rawCall(t, d.path, 1000)
	if err := slow.WriteData(1, false, []byte{0}); err != nil {
		t.Fatal(err)
	}
	if code, err := answer(slow); err != nil || code != fmt.Sprint(int(codes.DeadlineExceeded)) {
		t.Errorf("a message that does not come: status %q, %v", code, err)
	}
	if _, err := d.dial(t).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("another call: %v", err)
	}
	conn.Close()
}

// TestLargeFrame: what says that it is larger than any message may be is refused
// before it comes.
func TestLargeFrame(t *testing.T) {
	d := openShared(t, true, func(context.Context) error { return nil })
	for _, size := range []uint32{maxMessage + 1, 1 << 31, 1<<32 - 1} {
		framer, conn := rawCall(t, d.path, size)
		if code, err := answer(framer); err != nil || code != fmt.Sprint(int(codes.ResourceExhausted)) {
			t.Errorf("a message of %d bytes: status %q, %v", size, code, err)
		}
		conn.Close()
	}
}

// TestOtherServicesEnd when the door is closed, so that a stream without end does
// not keep it open.
func TestOtherServicesEnd(t *testing.T) {
	stopping, stop := context.WithCancel(t.Context())
	path := filepath.Join(socketDir(t), "s")
	listener, err := Listen(t.Context(), SocketConfig{Path: path, Mode: 0o600, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	shares := NewShares(stopping, NewRoom(), func(authz.Caller) bool { return true }, "another.Service", func(string) {})
	server := NewServer(ServerConfig{Log: slog.New(slog.DiscardHandler), Observe: nobody, Shares: shares})
	serving := make(chan bool, 1)
	grpc_health_v1.RegisterHealthServer(server, &Health{Serving: func() bool { serving <- true; return true }})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	<-serving
	go func() {
		for range serving {
		}
	}()
	stop()
	server.GracefulStop()
	close(serving)
	<-done
	if _, err := watch.Recv(); err == nil {
		t.Error("the stream goes on")
	}
}

// TestKeepRoomFor: the daemon reaches itself through a door that is full.
func TestKeepRoomFor(t *testing.T) {
	shares := NewShares(t.Context(), &Room{}, func(authz.Caller) bool { return false }, "s", func(string) {}).KeepRoomFor(7)
	stranger, self := shares.owner(authz.Caller{PID: 8}), shares.owner(authz.Caller{PID: 7})
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if _, err := shares.own(near, stranger); err == nil {
		t.Error("a connection without room")
	}
	conn, err := shares.own(near, self)
	if err != nil {
		t.Fatal(err)
	}
	for range maxStrangerCalls {
		if err := shares.enter(stranger); err != nil {
			t.Fatal(err)
		}
	}
	shares.all += maxAllCalls
	if shares.enter(stranger) == nil {
		t.Error("a call too many")
	}
	if err := shares.enter(self); err != nil {
		t.Error(err)
	}
	shares.leave(self)
	conn.Close()
	if _, left := shares.used[self]; left {
		t.Error("its share is used after the end")
	}
}
