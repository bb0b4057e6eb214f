package datakey

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

var (
	errAway    = errors.New("no answer")
	errRefused = errors.New("the CMK is disabled")
)

// kms gives out data keys of which each is another, or fails.
type kms struct {
	mu    sync.Mutex
	calls int
	err   error
	takes time.Duration
	made  *DataKey // the last
	next  DataKey  // what else is in the next ones
}

func (k *kms) fetch(ctx context.Context) (*DataKey, error) {
	k.mu.Lock()
	k.calls++
	err, takes := k.err, k.takes
	made := k.next
	made.Plaintext, made.RequestID = bytes.Repeat([]byte{byte(k.calls)}, 32), fmt.Sprint(k.calls)
	k.made = &made
	k.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(takes):
	}
	if err != nil {
		return nil, err
	}
	return &made, nil
}

func (k *kms) set(err error, takes time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err, k.takes = err, takes
}

func (k *kms) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls
}

var usual = Limits{Age: 5 * time.Minute, Idle: time.Minute, MaxMessages: 1 << 20, MaxBytes: 1 << 40}

var sealing = ID{Key: "payments", Sealing: true, What: "key-1"}

// inBubble runs f with a cache on a clock that moves only when all sleep.
func inBubble(t *testing.T, limits Limits, f func(t *testing.T, c *Cache, k *kms)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := New(limits, time.Now, func(err error) bool { return errors.Is(err, errAway) || errors.Is(err, context.DeadlineExceeded) })
		ctx, stop := context.WithCancel(t.Context())
		var keeping sync.WaitGroup
		keeping.Go(func() { c.Keep(ctx) })
		defer keeping.Wait()
		defer stop()
		f(t, c, &kms{})
	})
}

// get expects the data key of the nth call, or for 0 that KMS said err.
func get(t *testing.T, c *Cache, k *kms, want int, err error) {
	t.Helper()
	found, got := c.Get(t.Context(), sealing, 1, k.fetch)
	switch {
	case want == 0 && (found != nil || !errors.Is(got, err)):
		t.Fatalf("at %v: %+v, %v, want %v", time.Now(), found, got, err)
	case want > 0 && (got != nil || found.Plaintext[0] != byte(want)):
		t.Fatalf("at %v: %+v, %v, want the key of call %d", time.Now(), found, got, want)
	}
}

func kept(c *Cache) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[sealing]
}

func wiped(c *Cache, e *entry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Equal(e.Plaintext, make([]byte, 32))
}

func TestAge(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		for range 10 { // never idle
			get(t, c, k, 1, nil)
			time.Sleep(30*time.Second - 1)
		}
		first := kept(c)
		time.Sleep(10 * time.Nanosecond)
		get(t, c, k, 2, nil)
		if !wiped(c, first) {
			t.Error("the key before is not wiped")
		}
	})
}

// TestAgeCountsFromTheQuestion: what KMS said is as old as the question, however
// long the answer took.
func TestAgeCountsFromTheQuestion(t *testing.T) {
	limits := usual
	limits.Idle = limits.Age
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		k.set(nil, 20*time.Second)
		get(t, c, k, 1, nil)
		time.Sleep(limits.Age - 20*time.Second)
		get(t, c, k, 2, nil)
	})
}

func TestIdle(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		time.Sleep(50 * time.Second)
		get(t, c, k, 1, nil) // which makes it last another minute
		time.Sleep(time.Minute - 1)
		first := kept(c)
		if wiped(c, first) || c.Status().Keys != 1 {
			t.Error("wiped too early")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if !wiped(c, first) || c.Status().Keys != 0 {
			t.Error("an idle key is not wiped")
		}
		get(t, c, k, 2, nil)
	})
}

// TestOfflineIsOff: unless it is allowed, a key is gone when its time is over,
// whatever KMS does.
func TestOfflineIsOff(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		k.set(errAway, 0)
		get(t, c, k, 1, nil)
		time.Sleep(time.Minute)
		get(t, c, k, 0, errAway)
		k.set(nil, 0)
		get(t, c, k, 3, nil)
	})
}

func TestOffline(t *testing.T) {
	limits := usual
	limits.Offline = time.Hour
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		time.Sleep(time.Minute)
		get(t, c, k, 2, nil) // not while KMS answers
		k.set(errAway, 0)
		began := time.Now()
		for time.Since(began) < limits.Age+limits.Offline-time.Second {
			get(t, c, k, 2, nil) // these do not make it last longer
			time.Sleep(time.Second)
		}
		if calls := k.count() - 2; calls < 700 || calls > 721 {
			t.Errorf("KMS was asked %d times in an hour, not every %v", calls, askAgain)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c.Status().Keys != 0 {
			t.Error("the key is there after its time")
		}
		get(t, c, k, 0, errAway)
	})
}

func TestOfflineEndsWithTheOutage(t *testing.T) {
	limits := usual
	limits.Offline = time.Hour
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		time.Sleep(time.Minute)
		k.set(errAway, 0)
		get(t, c, k, 1, nil)
		k.set(nil, 0)
		get(t, c, k, 1, nil)
		time.Sleep(askAgain)
		get(t, c, k, 3, nil)
		time.Sleep(time.Minute)
		k.set(errRefused, 0) // no outage
		get(t, c, k, 0, errRefused)
		k.set(errAway, 0)
		get(t, c, k, 0, errAway)
	})
}

// TestSlow: who has a key for it does not wait long for a KMS that does not answer.
func TestSlow(t *testing.T) {
	limits := usual
	limits.Offline = time.Hour
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		time.Sleep(time.Minute)
		k.set(nil, time.Hour)
		began := time.Now()
		get(t, c, k, 1, nil)
		if took := time.Since(began); took != patience {
			t.Errorf("waited %v", took)
		}
		time.Sleep(fetchTime) // it is given up and counts as unreachable
		began = time.Now()
		get(t, c, k, 1, nil)
		if took := time.Since(began); took != 0 || k.count() != 2 {
			t.Errorf("waited %v, %d calls", took, k.count())
		}
	})
}

func TestLimits(t *testing.T) {
	limits := usual
	limits.MaxMessages, limits.MaxBytes = 3, 100
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		for i, tt := range []struct {
			size uint64
			want byte
		}{{1, 1}, {1, 1}, {1, 1}, {1, 2}, {99, 2}, {1, 3}, {100, 4}, {101, 5}, {1, 6}, {1 << 63, 7}, {1 << 63, 8}, {0, 6}, {0, 6}, {100, 9}, {0, 9}} {
			found, err := c.Get(t.Context(), sealing, tt.size, k.fetch)
			if err != nil || found.Plaintext[0] != tt.want {
				t.Errorf("message %d of %d bytes: %+v, %v, want key %d", i, tt.size, found, err, tt.want)
			}
		}
	})
}

// TestHardLimit: being offline allows no more messages than a data key may seal.
func TestHardLimit(t *testing.T) {
	limits := usual
	limits.MaxMessages, limits.Offline = 2, time.Hour
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		k.set(errAway, 0)
		get(t, c, k, 1, nil)
		get(t, c, k, 0, errAway)
	})
}

// TestWaiters: a thousand callers cause one call to KMS, the first of them may
// leave, and each has its own copy.
func TestWaiters(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		k.set(nil, 10*time.Second)
		first, leave := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, err := c.Get(first, sealing, 1, k.fetch); !errors.Is(err, context.Canceled) {
				t.Errorf("the first: %v", err)
			}
		})
		synctest.Wait()
		for range 1000 {
			waiting.Go(func() {
				found, err := c.Get(t.Context(), sealing, 1, k.fetch)
				if err != nil || found.Plaintext[0] != 1 || found.RequestID != "1" {
					t.Errorf("%+v, %v", found, err)
					return
				}
				clear(found.Plaintext)
			})
		}
		synctest.Wait()
		leave()
		waiting.Wait()
		if k.count() != 1 {
			t.Errorf("%d calls to KMS", k.count())
		}
	})
}

// TestFailureIsShared, and not remembered.
func TestFailureIsShared(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		k.set(errRefused, time.Second)
		var waiting sync.WaitGroup
		for range 100 {
			waiting.Go(func() {
				if _, err := c.Get(t.Context(), sealing, 1, k.fetch); !errors.Is(err, errRefused) {
					t.Error(err)
				}
			})
		}
		waiting.Wait()
		k.set(nil, 0)
		get(t, c, k, 2, nil)
	})
}

func TestPanic(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		_, err := c.Get(t.Context(), sealing, 1, func(context.Context) (*DataKey, error) { panic("secret") })
		if !errors.Is(err, errPanic) {
			t.Error(err)
		}
		get(t, c, k, 1, nil)
	})
}

// TestDrop: what an administrator ended is not used again, even if KMS gave it out
// just before.
func TestDrop(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		other := ID{Key: "other"}
		if _, err := c.Get(t.Context(), other, 1, k.fetch); err != nil {
			t.Fatal(err)
		}
		dropped := kept(c)
		c.Drop("payments")
		if !wiped(c, dropped) || c.Status().Keys != 1 {
			t.Error("not dropped, or too much")
		}
		k.set(nil, time.Second)
		var under sync.WaitGroup
		under.Go(func() { get(t, c, k, 3, nil) })
		synctest.Wait()
		c.Drop("payments")
		under.Go(func() { get(t, c, k, 4, nil) }) // asks anew
		under.Wait()
		get(t, c, k, 4, nil)
	})
}

// TestPartial: a data key that lacks a region is soon replaced.
func TestPartial(t *testing.T) {
	limits := usual
	limits.Idle = limits.Age
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		k.next.Partial = true
		get(t, c, k, 1, nil)
		time.Sleep(partialAge - 1)
		get(t, c, k, 1, nil)
		time.Sleep(time.Nanosecond)
		get(t, c, k, 2, nil)
	})
}

// TestMany: the cache does not grow for ever, and keeps what is in use.
func TestMany(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		for i := range maxKeys + 10 {
			time.Sleep(time.Nanosecond)
			if _, err := c.Get(t.Context(), ID{Key: "payments", What: fmt.Sprint(i)}, 1, k.fetch); err != nil {
				t.Fatal(err)
			}
			get(t, c, k, 1, nil)
		}
		if n := c.Status().Keys; n != maxKeys {
			t.Errorf("%d keys", n)
		}
	})
}

// TestStop: what is under way when the daemon stops ends, and nothing is left.
func TestStop(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c := New(usual, time.Now, func(error) bool { return false })
	k := &kms{}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Keep(ctx) })
	get(t, c, k, 1, nil)
	last := kept(c)
	k.set(nil, time.Hour)
	began := make(chan struct{})
	running.Go(func() {
		_, err := c.Get(t.Context(), ID{Key: "slow"}, 1, func(ctx context.Context) (*DataKey, error) { close(began); return k.fetch(ctx) })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-began
	stop()
	running.Wait()
	if !wiped(c, last) || c.Status().Keys != 0 {
		t.Error("a key is left")
	}
	get(t, c, k, 0, context.Canceled)
}

func TestStats(t *testing.T) {
	limits := usual
	limits.Offline = time.Hour
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		k.set(errAway, 0)
		get(t, c, k, 0, errAway)
		k.set(nil, 0)
		get(t, c, k, 2, nil)
		get(t, c, k, 2, nil)
		get(t, c, k, 2, nil)
		time.Sleep(limits.Age)
		k.set(errAway, 0)
		get(t, c, k, 2, nil) // after a question
		get(t, c, k, 2, nil) // without one
		if got, want := c.Status().Stats, (Stats{Cached: 2, Fetched: 1, Offline: 2, Answered: 1, Failed: 2}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}
