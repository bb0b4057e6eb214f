package p11kit

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/proxy"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
)

// TestVersions: each version is served, and one that is later than ours is on the log
// with ours.
func TestVersions(t *testing.T) {
	h := newHouse(t, true).serve()
	for offer := rpc.Version(0); offer <= rpc.Latest+1; offer++ {
		c := h.client(offer)
		s, key := c.session()
		c.signInit(s, key)
		c.signed(c.want(cryptoki.CKR_OK, sign(s)))
		logged := strings.Contains(h.logged(), "offered=3 spoken=2")
		if logged != (offer > rpc.Latest) {
			t.Errorf("after version %d: %v, the log: %s", offer, logged, h.logged())
		}
		if earlier := fmt.Sprintf("offered=%d latest=2", offer); strings.Contains(h.logged(), earlier) != (offer < rpc.Latest) {
			t.Errorf("after version %d the log is: %s", offer, h.logged())
		}
		c.must(cryptoki.Finalize)
		c.want(cryptoki.CKR_CRYPTOKI_NOT_INITIALIZED, &cryptoki.Call{Function: cryptoki.GetInfo})
		c.session()
	}
}

// frame is one of a code and a body, with the header's length said to be another.
func frame(code uint32, size int, body ...byte) []byte {
	f := append(rpc.BeginFrame(nil), body...)
	rpc.EndFrame(f, 0, code)
	f[8], f[9], f[10], f[11] = byte(size>>24), byte(size>>16), byte(size>>8), byte(size)
	return f
}

// TestHostileBytes: what is no call is answered, what is no frame ends the connection, and
// nobody else notices.
func TestHostileBytes(t *testing.T) {
	h := newHouse(t, true).serve()
	honest := h.client(rpc.Latest)
	s, key := honest.session()
	rubbish := h.client(rpc.Latest)
	for _, body := range [][]byte{
		{1}, {0, 0, 0, 43}, {0, 0, 15, 160, 0, 0, 0, 0}, append([]byte{0, 0, 0, 43, 0, 0, 0, 1, 'u'}, make([]byte, 8)...),
		{0, 0, 0, 20, 0, 0, 0, 3, 'u', 'a', 'A', 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff},
	} {
		if _, err := rubbish.conn.Write(frame(7, len(body), body...)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 12+4+4+1+8)
		if _, err := io.ReadFull(rubbish.conn, answer); err != nil || answer[3] != 7 || answer[len(answer)-1] != byte(cryptoki.CKR_DEVICE_ERROR) {
			t.Fatalf("%x is answered with %x, %v", body, answer, err)
		}
	}
	rubbish.session()
	for name, stream := range map[string][]byte{
		"code 0":   frame(0, 1, 1),
		"too long": frame(1, rpc.MaxBody+1),
		"options":  {0, 0, 0, 1, 0xff, 0, 0, 0, 0, 0, 0, 1, 1},
	} {
		c := h.client(rpc.Latest)
		if _, err := c.conn.Write(stream); err != nil {
			t.Fatal(name, err)
		}
		ended(t, c.conn)
	}
	honest.signInit(s, key)
	honest.signed(honest.want(cryptoki.CKR_OK, sign(s)))
}

// TestPatience: who begins something and does not go on is sent away.
func TestPatience(t *testing.T) {
	h := newHouse(t, true)
	h.greetTime, h.frameTime = 50*time.Millisecond, 50*time.Millisecond
	h.serve()
	ended(t, h.dial()) // says nothing
	for _, part := range [][]byte{frame(1, 100)[:5], frame(1, 100, 1, 2, 3), frame(1, 1<<20, make([]byte, 100<<10)...)} {
		c := h.client(rpc.Latest)
		if _, err := c.conn.Write(part); err != nil {
			t.Fatal(err)
		}
		ended(t, c.conn)
	}
	idle := h.client(rpc.Latest)
	s, key := idle.session()
	c := h.client(rpc.Latest)
	if _, err := c.conn.Write(frame(1, 1)[:1]); err != nil {
		t.Fatal(err)
	}
	ended(t, c.conn) // longer than any patience
	idle.signInit(s, key)
	idle.signed(idle.want(cryptoki.CKR_OK, sign(s)))
}

// TestNoReader: who asks for large answers and reads none is sent away, and holds up
// nobody meanwhile.
func TestNoReader(t *testing.T) {
	h := newHouse(t, true)
	h.frameTime = 50 * time.Millisecond
	h.serve()
	c := h.client(rpc.Latest)
	s, _ := c.session()
	body, err := rpc.Latest.AppendCall(nil, &cryptoki.Call{Function: cryptoki.GenerateRandom, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: rpc.MaxBody / 2}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.conn.Write(frame(9, len(body), body...)); err != nil {
		t.Fatal(err)
	}
	h.until("the client is gone", func(s proxy.Status) bool { return s.Clients == 0 })
	ended(t, c.conn)
	other := h.client(rpc.Latest)
	other.session()
}

// TestLargeCalls: a user has so many in memory at once, others wait, and one that has
// waited for too long is refused and nothing worse.
func TestLargeCalls(t *testing.T) {
	h := newHouse(t, true)
	h.large.wait = 20 * time.Millisecond
	h.serve()
	c := h.client(rpc.Latest)
	s, key := c.session()
	var senders []net.Conn
	for range maxLarge {
		sender := h.client(rpc.Latest).conn
		if _, err := sender.Write(frame(1, 1<<20, make([]byte, 70<<10)...)); err != nil {
			t.Fatal(err)
		}
		senders = append(senders, sender)
	}
	h.until("all senders are in", func(proxy.Status) bool {
		h.large.mu.Lock()
		defer h.large.mu.Unlock()
		for _, l := range h.large.lines {
			return len(l.places) == maxLarge
		}
		return false
	})
	large := sign(s)
	large.Data[0] = make([]byte, 1<<20)
	c.signInit(s, key)
	c.want(cryptoki.CKR_DEVICE_MEMORY, large)
	random := &cryptoki.Call{Function: cryptoki.GenerateRandom, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: 1 << 20}}
	c.want(cryptoki.CKR_DEVICE_MEMORY, random)
	if n := h.device.Count(cryptoki.Sign) + h.device.Count(cryptoki.GenerateRandom); n != 0 {
		t.Errorf("%d calls reached the device", n)
	}
	h.large.mu.Lock()
	h.large.wait = time.Minute
	h.large.mu.Unlock()
	answered := make(chan cryptoki.RV)
	go func() {
		answer, err := c.Do(t.Context(), large)
		if err != nil {
			t.Error(err)
		}
		answered <- answer.RV
	}()
	senders[0].Close()
	if rv := <-answered; rv != cryptoki.CKR_OK {
		t.Errorf("with a place: %v", rv)
	}
	if a := c.want(cryptoki.CKR_OK, random); len(a.Data) != 1<<20 {
		t.Errorf("%d bytes", len(a.Data))
	}
}

// TestDisconnect: a client that is gone leaves nothing, whatever it was in the middle of.
func TestDisconnect(t *testing.T) {
	h := newHouse(t, true).serve()
	for name, middle := range map[string]func(c *client, s, key uint64){
		"idle":     func(*client, uint64, uint64) {},
		"begun":    func(c *client, s, key uint64) { c.signInit(s, key) },
		"searched": func(c *client, s, _ uint64) { c.must(cryptoki.FindObjectsInit, s) },
		"fed": func(c *client, s, key uint64) {
			c.signInit(s, key)
			c.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.SignUpdate, Numbers: [4]uint64{s}, Data: [2][]byte{{1}}})
		},
		"half a frame": func(c *client, _, _ uint64) { _, _ = c.conn.Write(frame(1, 100, 1)) },
		"an object": func(c *client, s, _ uint64) {
			c.want(cryptoki.CKR_OK, &cryptoki.Call{Function: cryptoki.CreateObject, Numbers: [4]uint64{s}, Templates: [2][]cryptoki.Attribute{proxytest.Key("own", "2")}})
		},
	} {
		c := h.client(rpc.Latest)
		s, key := c.session()
		c.must(cryptoki.FindObjectsFinal, s)
		middle(c, s, key)
		c.conn.Close()
		h.until(name, func(s proxy.Status) bool { return s.Clients == 0 })
		h.until(name, func(s proxy.Status) bool { return s.Parked+s.Lent() == 0 && h.device.Objects() == 1 })
	}
}

// TestStop: the call under way is answered, and its connection ends then; others end at
// once, and none is taken.
func TestStop(t *testing.T) {
	h := newHouse(t, true).serve()
	h.device.Blocking = make(chan struct{})
	busy, idle, silent := h.client(rpc.Latest), h.client(rpc.Latest), h.dial()
	s, key := busy.session()
	idle.session()
	busy.signInit(s, key)
	answered, stopped := make(chan *cryptoki.Answer), make(chan struct{})
	go func() {
		answer, err := busy.Do(t.Context(), sign(s))
		if err != nil {
			t.Error(err)
		}
		answered <- answer
	}()
	h.until("the device has the call", func(proxy.Status) bool { return h.device.Count(cryptoki.Sign) > 0 })
	go func() { h.Stop(time.Minute); close(stopped) }()
	ended(t, idle.conn)
	ended(t, silent)
	close(h.device.Blocking)
	busy.signed(<-answered)
	ended(t, busy.conn)
	<-stopped
	if _, err := net.Dial("unix", h.path); err == nil {
		t.Error("the door is open")
	}
}

// TestStopEndsTheSlow: a call that came in parts must not outlive Stop with the
// deadline that it was given, and one that does not end is cut off.
func TestStopEndsTheSlow(t *testing.T) {
	h := newHouse(t, true).serve()
	h.device.Blocking = make(chan struct{})
	c := h.client(rpc.Latest)
	s, key := c.session()
	c.signInit(s, key)
	body, err := rpc.Latest.AppendCall(nil, sign(s))
	if err != nil {
		t.Fatal(err)
	}
	whole := frame(5, len(body), body...)
	for _, part := range [][]byte{whole[:20], whole[20:]} {
		if _, err := c.conn.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	h.until("the device has the call", func(proxy.Status) bool { return h.device.Count(cryptoki.Sign) > 0 })
	stopped := make(chan struct{})
	go func() { h.Stop(time.Minute); close(stopped) }()
	<-h.stop.Done()
	close(h.device.Blocking)
	ended(t, c.conn)
	<-stopped
}

// TestShares: a user has so many connections, and a stranger is told what he may see.
func TestShares(t *testing.T) {
	h := newHouse(t, false).serve()
	var all []net.Conn
	for {
		conn := h.dial()
		_, err := rpc.Negotiate(conn, rpc.Latest)
		if err != nil {
			break
		}
		all = append(all, conn)
	}
	const most = 256 // see LimitPerUID
	if len(all) != most {
		t.Errorf("%d connections of one user", len(all))
	}
	all[0].Close()
	h.until("there is room again", func(proxy.Status) bool {
		conn := h.dial()
		_, err := rpc.Negotiate(conn, rpc.Latest)
		return err == nil
	})
}

// flaky is a listener that has no descriptors at first.
type flaky struct {
	net.Listener
	failures int
}

// Accept implements net.Listener.
func (l *flaky) Accept() (net.Conn, error) {
	if l.failures--; l.failures >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// TestNoDescriptors: the door does not close for ever because descriptors ran out.
func TestNoDescriptors(t *testing.T) {
	h := newHouse(t, true)
	dir, err := os.MkdirTemp("", "kb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h.path = dir + "/s"
	listener, err := net.Listen("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	h.serveAt(&flaky{listener, 2})
	h.client(rpc.Latest).session()
}

// TestPanic: a call that panics is answered, and its value is not logged.
func TestPanic(t *testing.T) {
	h := newHouse(t, true).serve()
	h.device.Answers = func(call *cryptoki.Call) *cryptoki.Answer {
		if call.Function == cryptoki.GetTokenInfo {
			return &cryptoki.Answer{Info: (*cryptoki.TokenInfo)(nil)}
		}
		return nil
	}
	c := h.client(rpc.Latest)
	s, key := c.session()
	c.want(cryptoki.CKR_GENERAL_ERROR, &cryptoki.Call{Function: cryptoki.GetTokenInfo, Numbers: [4]uint64{1}})
	c.signInit(s, key)
	c.signed(c.want(cryptoki.CKR_OK, sign(s)))
	if !bytes.Contains([]byte(h.logged()), []byte("panic in a PKCS#11 call")) {
		t.Error("nothing is logged")
	}
}
