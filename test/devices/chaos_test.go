package devices

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"crypto/rsa"
	"crypto/x509"

	cryptorand "crypto/rand"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

const (
	chaosCallers  = 8
	chaosDeadline = 10 * time.Second // of each call
	chaosGrace    = 2 * time.Second  // what a busy machine may add
	chaosRecovery = 2 * time.Second  // after the device's return
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
// twice or left behind, no PIN is counted, and the device serves again soon
// after it is back.
func TestChaos(t *testing.T) {
	for _, dress := range []hsmsim.Dress{hsmsim.Luna, hsmsim.DPoD} {
		t.Run(string(dress), func(t *testing.T) {
			seed := chaosSeed()
			t.Logf("KMSBROKER_SEED=%d", seed)
			d := newDevice(t, dress,
				hsmsim.Set("receive_timeout_ms", "500"), hsmsim.Set("jwt_refresh_ms", "100"),
				hsmsim.Set("latency_min_ms", "0"), hsmsim.Set("latency_max_ms", "2"))
			b := backend.New(backend.Config{
				Name: "hsm", Launch: d.launch, Logins: d.logins, CallTimeout: 3 * time.Second,
				Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Changed: func(backend.Status) {},
			})
			supervised, stop := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); b.Run(supervised) }()
			defer func() { stop(); <-done }()

			c := &chaos{t: t, token: b.Token(), spki: wrappingKey(t), asked: map[hsm.KeyID]bool{}, destroyed: map[hsm.KeyID]bool{}}
			c.run(chaosLength(t), d, rand.New(rand.NewPCG(seed, 0)))
			c.checkKeys()
			if n := d.Failures("co"); n != 0 {
				t.Errorf("%d wrong PINs were counted", n)
			}
			t.Logf("%d calls, %d of them failed; %d plugin restarts", c.calls, c.failures, b.Status().Restarts)
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
	t     *testing.T
	token hsm.Token
	spki  []byte

	mu              sync.Mutex
	asked           map[hsm.KeyID]bool // every ID that a generation was tried with
	destroyed       map[hsm.KeyID]bool
	calls, failures int
}

// run lets the callers work while faults happen, and returns when both ended.
func (c *chaos) run(length time.Duration, d *device, random *rand.Rand) {
	ctx, cancel := context.WithTimeout(c.t.Context(), length)
	defer cancel()
	var callers sync.WaitGroup
	for range chaosCallers {
		callers.Go(func() {
			for ctx.Err() == nil {
				if !c.cycle() {
					wait(ctx, 5*time.Millisecond) // a refused caller comes back, it does not spin
				}
			}
		})
	}
	for ctx.Err() == nil {
		c.fault(ctx, d, random)
	}
	d.Reset()
	c.awaitRecovery()
	callers.Wait()
}

// cycle generates a key and wraps it, as an import does, and destroys it again.
func (c *chaos) cycle() (ok bool) {
	id := hsm.NewKeyID()
	c.mu.Lock()
	c.asked[id] = true
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
	if err != nil {
		return false
	}
	err = c.call("destroy", func(ctx context.Context) error {
		err := c.token.DestroyKey(ctx, id)
		if errors.Is(err, hsm.NotFound) {
			return nil // the answer to the first attempt was lost
		}
		return err
	})
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.destroyed[id] = true
	}
	return err == nil
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

// fault makes one thing go wrong, waits, and undoes it.
func (c *chaos) fault(ctx context.Context, d *device, random *rand.Rand) {
	functions := []string{"C_GenerateKey", "C_WrapKey", "C_FindObjectsInit", "C_GetAttributeValue", "C_OpenSession", "C_DestroyObject"}
	function := functions[random.IntN(len(functions))]
	faults := map[string]func(){
		"link":  d.LinkDown,
		"idle":  func() { d.IdleDrop(function) },
		"crash": func() { d.Crash(function) },
		"hang":  func() { d.Hang(function) },
		"lose":  func() { d.Lose("C_GenerateKey", 0x30, 1) },
		"error": func() { d.Inject(function, 0x80000041, 2) },
		"jwt":   d.JWTExpired,
	}
	names := []string{"link", "idle", "crash", "hang", "lose", "error", "jwt"}
	name := names[random.IntN(len(names))]
	c.t.Logf("fault %s %s", name, function)
	faults[name]()
	wait(ctx, time.Duration(random.IntN(1500))*time.Millisecond)
	d.Reset()
	wait(ctx, time.Duration(random.IntN(1000))*time.Millisecond)
}

func wait(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}

// awaitRecovery measures how long the device's return takes to be noticed. The
// bound only finds what does not recover by itself; the figure is in the log.
func (c *chaos) awaitRecovery() {
	c.t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// Health alone may pass on a process that has yet to find out.
	for !c.cycle() && ctx.Err() == nil {
		wait(ctx, 10*time.Millisecond)
	}
	took := time.Since(begin)
	c.t.Logf("served again %v after the device's return", took)
	if took > chaosRecovery+chaosGrace {
		c.t.Errorf("served again only after %v", took)
	}
}

// checkKeys: each key is there once at the most, and none that nobody asked for
// or that was destroyed.
func (c *chaos) checkKeys() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	keys, err := c.token.Keys(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	seen := map[hsm.KeyID]bool{}
	for _, key := range keys {
		switch {
		case seen[key.ID]:
			c.t.Errorf("key %s is there twice", key.ID)
		case !c.asked[key.ID]:
			c.t.Errorf("key %s was not asked for", key.ID)
		case c.destroyed[key.ID]:
			c.t.Errorf("key %s is there although it was destroyed", key.ID)
		}
		seen[key.ID] = true
	}
	if len(c.destroyed) == 0 {
		c.t.Errorf("no key went its whole way in %d calls", c.calls)
	}
	c.t.Logf("%d keys went their whole way, %d were left by calls that failed", len(c.destroyed), len(seen))
}
