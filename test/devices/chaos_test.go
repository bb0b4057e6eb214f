package devices

import (
	"context"
	cryptorand "crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

const (
	chaosCallers  = 8
	chaosDeadline = 10 * time.Second // of each call
	chaosGrace    = 2 * time.Second  // what a busy machine may add to it
	chaosRecovery = 2 * time.Second  // from the device's return to the first success
)

// chaosLength is how long the chaos lasts: KMSBROKER_CHAOS, or a few seconds.
func chaosLength(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("KMSBROKER_CHAOS")
	if text == "" {
		return 10 * time.Second
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return length
}

// chaosSeed is KMSBROKER_SEED, or the clock.
func chaosSeed() uint64 {
	if seed, err := strconv.ParseUint(os.Getenv("KMSBROKER_SEED"), 10, 64); err == nil {
		return seed
	}
	return uint64(time.Now().UnixNano())
}

// TestChaos lets callers generate and wrap while the device misbehaves at
// random. Every call ends in time with a result or a typed error, no key is made
// twice, no PIN is counted, and after each trouble the device serves again as
// soon as it is back. Who asked for a key under an ID that he wrote down can
// destroy it in the end, whatever he was answered, and then nothing is left.
func TestChaos(t *testing.T) {
	for _, dress := range []hsmsim.Dress{hsmsim.Luna, hsmsim.DPoD} {
		t.Run(string(dress), func(t *testing.T) {
			seed := chaosSeed()
			t.Logf("KMSBROKER_SEED=%d", seed)
			d := newDevice(t, dress,
				hsmsim.Set("jwt_refresh_ms", "100"), hsmsim.Set("latency_min_ms", "0"), hsmsim.Set("latency_max_ms", "2"))
			b := backend.New(backend.Config{
				Name: "hsm", Launch: d.launch, Logins: d.logins, CallTimeout: 3 * time.Second,
				Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Changed: func(backend.Status) {},
			})
			supervised, stop := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); b.Run(supervised) }()
			defer func() { stop(); <-done }()

			if err := b.Token().Health(t.Context()); err != nil {
				t.Fatal(err) // the first start is no recovery
			}
			c := &chaos{t: t, dress: dress, device: d, token: b.Token(), status: b.Status, spki: wrappingKey(t), asked: map[hsm.KeyID]bool{}}
			c.run(chaosLength(t), rand.New(rand.NewPCG(seed, 0)))
			c.checkLogins()
			c.checkStored()
			c.checkSessions(b.Status().PID)
			c.resolve()
			if left := d.Stored(); len(left) != 0 {
				t.Errorf("%d objects are left on the token: %+v", len(left), left)
			}
			if n := d.Failures("co"); n != 0 {
				t.Errorf("%d wrong PINs were counted", n)
			}
			t.Logf("%d calls, %d of them failed; %d keys went their whole way; %d plugin restarts", c.calls, c.failures, c.whole, b.Status().Restarts)
			t.Logf("served again at the latest %v after the device's return", c.slowest)
		})
	}
}

func wrappingKey(t *testing.T) []byte {
	t.Helper()
	private, err := rsa.GenerateKey(cryptorand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

type chaos struct {
	t       *testing.T
	dress   hsmsim.Dress
	device  *device
	token   hsm.Token
	status  func() backend.Status
	spki    []byte
	slowest time.Duration // recovery

	mu                     sync.Mutex
	back, served           time.Time          // the device's last return, and the first success of a call begun after it
	asked                  map[hsm.KeyID]bool // that a generation was tried with; true when it was seen destroyed
	calls, failures, whole int
}

// run lets the callers work while faults happen, and returns when both ended and
// the device is back.
func (c *chaos) run(length time.Duration, random *rand.Rand) {
	ctx, cancel := context.WithTimeout(c.t.Context(), length)
	defer cancel()
	var callers sync.WaitGroup
	for range chaosCallers {
		callers.Go(func() {
			for ctx.Err() == nil {
				if !c.cycle() {
					wait(ctx, 20*time.Millisecond) // a refused caller comes back, it does not spin
				}
			}
		})
	}
	for ctx.Err() == nil {
		c.fault(ctx, random)
	}
	callers.Wait()
	if c.whole == 0 {
		c.t.Errorf("no key went its whole way in %d calls", c.calls)
	}
}

// cycle generates a key and wraps it, as an import does, and destroys it again.
func (c *chaos) cycle() (ok bool) {
	id := hsm.NewKeyID()
	c.mu.Lock()
	c.asked[id] = false
	c.mu.Unlock()
	err := c.call("generate", func(ctx context.Context) error {
		_, err := c.token.GenerateKey(ctx, hsm.KeySpec{ID: id, Label: "chaos"})
		return err
	})
	if err != nil {
		return false
	}
	err = c.call("wrap", func(ctx context.Context) error {
		_, err := c.token.Wrap(ctx, hsm.WrapRequest{Key: id, Algorithm: hsm.OAEPSHA256, PublicKey: c.spki})
		return err
	})
	if err != nil || c.destroy(id) != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole++
	return true
}

func (c *chaos) destroy(id hsm.KeyID) error {
	err := c.call("destroy", func(ctx context.Context) error {
		err := c.token.DestroyKey(ctx, id)
		if errors.Is(err, hsm.NotFound) {
			return nil // it was never made, or the answer to the first attempt was lost
		}
		return err
	})
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked[id] = true
	}
	return err
}

// call checks that a call ends within its deadline, with a result or a reason.
func (c *chaos) call(what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), chaosDeadline)
	defer cancel()
	begin := time.Now()
	err := f(ctx)
	if took := time.Since(begin); took > chaosDeadline+chaosGrace {
		c.t.Errorf("%s took %v", what, took)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if err == nil {
		if c.served.IsZero() && begin.After(c.back) {
			c.served = time.Now()
		}
		return nil
	}
	c.failures++
	e, ok := errors.AsType[*hsm.Error](err)
	expected := []hsm.Reason{hsm.TokenGone, hsm.Timeout, hsm.Busy}
	if !ok || !slices.Contains(expected, e.Reason) {
		c.t.Errorf("%s: %v (%s)", what, err, hsm.ReasonOf(err))
	}
	return err
}

// fault makes one thing go wrong, waits, undoes it, and waits for the recovery.
func (c *chaos) fault(ctx context.Context, random *rand.Rand) {
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	function := pick("C_GenerateKey", "C_WrapKey", "C_FindObjectsInit", "C_GetAttributeValue", "C_OpenSession", "C_DestroyObject")
	begin := pick("C_Initialize", "C_Login")
	const deviceError, busy = 0x30, 0x80000041 // CKR_DEVICE_ERROR, CKR_AGAIN
	d := c.device
	faults := map[string]func(){
		"link":  d.LinkDown,
		"idle":  func() { d.IdleDrop(function) },
		"crash": func() { d.Crash(function) },
		"hang":  func() { d.Hang(function) },
		"lose":  func() { d.Lose("C_GenerateKey", deviceError, 1) },
		"error": func() { d.Inject(function, busy, 2) },
		// What happens while a process begins takes the end of the one before.
		"begin crash": func() { d.Crash(begin); c.kill() },
		"begin hang":  func() { d.Hang(begin); c.kill() },
		"begin lose":  func() { d.Lose(begin, deviceError, 1); c.kill() },
		"begin error": func() { d.Inject(begin, busy, 1); c.kill() },
	}
	if c.dress == hsmsim.DPoD {
		faults["jwt"] = d.JWTExpired
	}
	name := pick(slices.Sorted(maps.Keys(faults))...)
	c.t.Logf("fault %s %s %s", name, function, begin)
	faults[name]()
	wait(ctx, time.Duration(random.IntN(2500))*time.Millisecond)
	d.Reset()
	c.awaitRecovery()
	wait(ctx, time.Duration(random.IntN(500))*time.Millisecond)
}

// kill ends the process that serves, if there is one.
func (c *chaos) kill() {
	if pid := c.status().PID; pid != 0 {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			c.t.Error(err)
		}
	}
}

func wait(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}

// awaitRecovery measures how long it takes from the device's return until the
// first call succeeds, of whatever caller.
func (c *chaos) awaitRecovery() {
	c.t.Helper()
	c.mu.Lock()
	c.back, c.served = time.Now(), time.Time{}
	c.mu.Unlock()
	const patience = 30 * time.Second
	for !c.cycle() && time.Since(c.back) < patience {
		time.Sleep(10 * time.Millisecond)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.served.IsZero() {
		c.served = time.Now() // in vain
	}
	took := c.served.Sub(c.back)
	c.slowest = max(c.slowest, took)
	if took > chaosRecovery {
		c.t.Errorf("served again only %v after the device's return", took)
	}
}

// checkLogins: no process has offered its PIN twice. A login that hung is in the
// log once more when it goes on.
func (c *chaos) checkLogins() {
	c.t.Helper()
	logins := map[int]int{}
	for _, call := range c.device.Calls() {
		if call.Function == "C_Login" && call.Answer != "hang" {
			if logins[call.PID]++; logins[call.PID] == 2 {
				c.t.Errorf("process %d logged in again", call.PID)
			}
		}
	}
	if len(logins) == 0 {
		c.t.Error("the device's log has no login")
	}
}

// checkStored: each object is a key that somebody asked for and that nobody has
// seen destroyed, and it is there once.
func (c *chaos) checkStored() {
	c.t.Helper()
	seen := map[hsm.KeyID]bool{}
	stored := c.device.Stored()
	for _, object := range stored {
		id := hsm.KeyIDFromBytes(object.ID)
		destroyed, asked := c.asked[id]
		switch {
		case object.Class != p11.CKO_SECRET_KEY:
			c.t.Errorf("an object of class %d is left on the token: %+v", object.Class, object)
		case seen[id]:
			c.t.Errorf("key %s is there twice", id)
		case !asked:
			c.t.Errorf("key %s was not asked for", id)
		case destroyed:
			c.t.Errorf("key %s is there although it was destroyed", id)
		}
		seen[id] = true
	}
	c.t.Logf("%d keys were left by %d calls that failed", len(stored), c.failures)
}

// checkSessions: the process that is alive has removed every wrapping key that it
// imported, or closed the session that it belonged to. Nobody else can see these
// objects, so the device's log has to tell.
func (c *chaos) checkSessions(pid int) {
	c.t.Helper()
	imported := map[uint]bool{} // by session
	for _, call := range c.device.Calls() {
		if call.PID != pid || call.Answer != "0x00000000" {
			continue
		}
		switch call.Function {
		case "C_CreateObject":
			if imported[call.Handle] {
				c.t.Errorf("session %d imported a wrapping key beside another", call.Handle)
			}
			imported[call.Handle] = true
		case "C_DestroyObject", "C_CloseSession":
			delete(imported, call.Handle)
		}
	}
	if len(imported) > 0 {
		c.t.Errorf("%d sessions still hold a wrapping key", len(imported))
	}
}

// resolve destroys what may have been left by calls that failed, as an import
// does that was given up: by the ID that was written down before the first
// attempt.
func (c *chaos) resolve() {
	c.t.Helper()
	for id, destroyed := range maps.Clone(c.asked) {
		if destroyed {
			continue
		}
		if err := c.destroy(id); err != nil {
			c.t.Errorf("key %s cannot be destroyed although the device is back: %v", id, err)
		}
	}
}
