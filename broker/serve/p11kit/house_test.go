package p11kit

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/proxy"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
)

// house is a door on a real socket, with a device in memory behind it.
type house struct {
	*Server
	t      *testing.T
	device *proxytest.Device
	proxy  *proxy.Proxy
	path   string
	served chan error

	mu  sync.Mutex
	log strings.Builder
}

// OpenApplication implements Core.
func (h *house) OpenApplication(_ context.Context, call broker.Call) *proxy.Application {
	everything := authz.ObjectGrant{Tokens: []string{"*"}, Labels: []string{"*"}, Operations: authz.ObjectOperations(), UIDs: []uint32{uint32(os.Getuid())}}
	policy := authz.NewPolicy(nil, everything)
	return h.proxy.Open(proxy.Client{
		Caller: call.Caller, Policy: func() *authz.Policy { return policy },
		Ready: func() error { return nil }, Record: func(audit.Event) error { return nil },
	})
}

// Write implements io.Writer, for the log.
func (h *house) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(p)
}

func (h *house) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

// newHouse makes a door for the present user, who is named or a stranger. It is ready to be
// changed before serve.
func newHouse(t *testing.T, named bool) *house {
	h := &house{t: t, device: proxytest.New(t), served: make(chan error, 1)}
	h.device.Put(proxytest.Key("k", "1")...)
	h.proxy = proxy.New(proxy.Config{
		Tokens: []proxy.Token{{Name: "luna", Backend: h.device}}, Reserved: func(string, []byte) bool { return false },
		Limits: proxy.Limits{SessionWait: 5 * time.Second, OperationIdle: time.Minute, MaxSessions: 1000},
		Now:    time.Now,
	})
	log := slog.New(slog.NewTextHandler(h, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h.Server = New(t.Context(), Config{
		Core: h, Log: log, Observe: func(string, error, time.Duration) {},
		Shares: serve.NewShares(t.Context(), serve.NewRoom(), func(authz.Caller) bool { return named }, Door, func(string) {}),
	})
	return h
}

func (h *house) serve() *house {
	h.t.Helper()
	dir, err := os.MkdirTemp("", "kb") // a socket's path is short
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { os.RemoveAll(dir) })
	h.path = filepath.Join(dir, "s")
	listener, err := serve.Listen(h.t.Context(), serve.SocketConfig{Path: h.path, Mode: 0o600, GID: -1})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.serveAt(serve.LimitPerUID(listener, func(string) {}))
}

func (h *house) serveAt(listener net.Listener) *house {
	go func() { h.served <- h.Serve(listener) }()
	h.t.Cleanup(func() {
		h.Stop(0)
		if err := <-h.served; err != nil {
			h.t.Error(err)
		}
		h.empty()
	})
	return h
}

// empty looks for what clients who are gone have left.
func (h *house) empty() {
	h.t.Helper()
	if s := h.proxy.Status()[0]; s.Clients+s.ClientSessions+s.Parked+s.Waiting+s.Lent() != 0 {
		h.t.Errorf("left behind: %+v", s)
	}
	if n := h.device.Objects(); n != 1 {
		h.t.Errorf("the device has %d objects, not 1", n)
	}
	if len(h.large.lines) != 0 || len(h.open) != 0 {
		h.t.Errorf("%d users with large calls, %d connections", len(h.large.lines), len(h.open))
	}
}

// until waits for what somebody else's end brings about.
func (h *house) until(what string, reached func(proxy.Status) bool) {
	h.t.Helper()
	for began := time.Now(); !reached(h.proxy.Status()[0]); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			h.t.Fatalf("%s: %+v", what, h.proxy.Status()[0])
		}
	}
}

// client speaks the protocol.
type client struct {
	*rpc.Client
	t    *testing.T
	conn net.Conn
}

func (h *house) dial() net.Conn {
	h.t.Helper()
	conn, err := net.Dial("unix", h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	return conn
}

func (h *house) client(offer rpc.Version) *client {
	h.t.Helper()
	conn := h.dial()
	version, err := rpc.Negotiate(conn, offer)
	if err != nil {
		h.t.Fatal(err)
	}
	return &client{rpc.NewClient(conn, version), h.t, conn}
}

func (c *client) want(rv cryptoki.RV, call *cryptoki.Call) *cryptoki.Answer {
	c.t.Helper()
	answer, err := c.Do(c.t.Context(), call)
	if err != nil {
		c.t.Fatalf("%v: %v", call.Function, err)
	}
	if answer.RV != rv {
		c.t.Fatalf("%v: %v, want %v", call.Function, answer.RV, rv)
	}
	return answer
}

func (c *client) must(f cryptoki.Function, numbers ...uint64) *cryptoki.Answer {
	c.t.Helper()
	call := &cryptoki.Call{Function: f, Room: cryptoki.Room{Size: 64}}
	copy(call.Numbers[:], numbers)
	return c.want(cryptoki.CKR_OK, call)
}

// session opens one that is logged in, and finds the key.
func (c *client) session() (s, key uint64) {
	c.t.Helper()
	c.want(cryptoki.CKR_OK, initialize())
	slot := c.must(cryptoki.GetSlotList).List[0]
	s = c.must(cryptoki.OpenSession, slot, cryptoki.CKF_SERIAL_SESSION|cryptoki.CKF_RW_SESSION).Numbers[0]
	c.must(cryptoki.Login, s, cryptoki.CKU_USER)
	c.must(cryptoki.FindObjectsInit, s)
	return s, c.must(cryptoki.FindObjects, s).List[0]
}

func initialize() *cryptoki.Call {
	return &cryptoki.Call{Function: cryptoki.Initialize, Data: [2][]byte{[]byte("PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1")}}
}

func (c *client) signInit(s, key uint64) {
	c.t.Helper()
	c.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.SignInit, Numbers: [4]uint64{s, key}, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_HMAC}})
}

func sign(s uint64) *cryptoki.Call {
	return &cryptoki.Call{Function: cryptoki.Sign, Numbers: [4]uint64{s}, Data: [2][]byte{[]byte("data")}, Room: cryptoki.Room{Size: 64}}
}

func (c *client) signed(a *cryptoki.Answer) {
	c.t.Helper()
	if string(a.Data) != string(proxytest.Signature("k", "data")) {
		c.t.Errorf("the signature is %x", a.Data)
	}
}

// ended waits for the end of a connection.
func ended(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var rest [4096]byte
	for {
		_, err := conn.Read(rest[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the connection goes on")
		}
		if err != nil {
			return
		}
	}
}
