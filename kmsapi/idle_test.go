package kmsapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network inside the test: connections without a kernel, so that time
// is the test's own.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
	dialed atomic.Int32
}

func newPipes() *pipes { return &pipes{accept: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.accept <- far:
		p.dialed.Add(1)
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accept:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// TestIdleConnections: the gateway drops connections after ten idle seconds.
// Until it might, they are reused; and no call meets a connection that is being dropped.
func TestIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		var requests atomic.Int32
		gateway := &http.Server{
			IdleTimeout: 10 * time.Second,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if err := r.ParseForm(); err != nil {
					t.Error(err)
				}
				answer := `{"RequestId":"r","KeyId":"k","CiphertextBlob":"b"}`
				if r.PostForm.Get("Action") == "CreateKey" {
					answer = metadata
				}
				fmt.Fprint(w, answer)
			}),
		}
		var wg sync.WaitGroup
		wg.Go(func() { gateway.Serve(network) })
		defer wg.Wait()
		defer gateway.Close()
		c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: "http://kms.example", Credentials: StaticCredentials(testCredentials)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.transport.DialContext = network.dial

		calls := int32(0)
		for _, tt := range []struct {
			idle   time.Duration
			reused bool
		}{
			{0, false}, {time.Second, true}, {4900 * time.Millisecond, true}, {9 * time.Second, false}, {9999 * time.Millisecond, false},
			{10 * time.Second, false}, {10001 * time.Millisecond, false}, {time.Minute, false}, {time.Millisecond, true},
		} {
			for _, name := range []string{"CreateKey", "Encrypt"} {
				time.Sleep(tt.idle)
				before := network.dialed.Load()
				if name == "CreateKey" {
					_, err = c.CreateKey(t.Context(), CreateKeyRequest{})
				} else {
					err = encryptFixed(t.Context(), c)
				}
				calls++
				if err != nil || requests.Load() != calls {
					t.Errorf("%s after %v: %v, %d requests for %d calls", name, tt.idle, err, requests.Load(), calls)
				}
				if reused := network.dialed.Load() == before; tt.idle > 0 && reused != tt.reused {
					t.Errorf("%s after %v: reused %v, want %v", name, tt.idle, reused, tt.reused)
				}
			}
		}
	})
}
