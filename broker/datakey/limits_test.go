package datakey

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var opening = ID{Key: "payments", What: "blob-1"}

// TestOpeningDoesNotCount: what a data key has sealed is limited, and not how often
// that is opened.
func TestOpeningDoesNotCount(t *testing.T) {
	limits := usual
	limits.MaxMessages, limits.MaxBytes, limits.Offline = 2, 10, time.Hour
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		for range 10 {
			if _, err := c.Get(t.Context(), opening, 100, k.fetch); err != nil {
				t.Fatal(err)
			}
			k.set(errAway, 0)
		}
		if k.count() != 1 {
			t.Errorf("KMS was asked %d times", k.count())
		}
	})
}

// TestLargeMessages have a data key of their own and leave that of the others alone.
func TestLargeMessages(t *testing.T) {
	limits := usual
	limits.MaxBytes, limits.Offline = 10, time.Hour
	inBubble(t, limits, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		if large, err := c.Get(t.Context(), sealing, 1<<60, k.fetch); err != nil || large.Plaintext[0] != 2 {
			t.Fatalf("%+v, %v", large, err)
		}
		if first := k.made; !allZero(first.Plaintext) {
			t.Error("a data key that is not kept is not wiped when it was handed out")
		}
		k.set(errAway, 0)
		get(t, c, k, 1, nil)
	})
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// TestUnkeptAreWiped: what comes after a drop, or after the end, is for those who wait.
func TestUnkeptAreWiped(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		k.set(nil, time.Second)
		var waiting sync.WaitGroup
		for range 3 {
			waiting.Go(func() {
				if got, err := c.Get(t.Context(), sealing, 1, k.fetch); err != nil || got.Plaintext[0] != 1 {
					t.Errorf("%+v, %v", got, err)
				}
			})
		}
		synctest.Wait()
		c.Drop(sealing.Key)
		waiting.Wait()
		if !allZero(k.made.Plaintext) || c.Status().Keys != 0 {
			t.Error("after a drop")
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Get(impatient, sealing, 1, k.fetch); err == nil {
			t.Error("an answer that cannot be there yet")
		}
		c.Drop(sealing.Key)
		time.Sleep(time.Minute)
		if k.count() != 2 || !allZero(k.made.Plaintext) {
			t.Error("when nobody waited any more")
		}
	})
}

// TestStoppedKeepsNothing: a call that ends after the cache has stopped leaves nothing
// behind.
func TestStoppedKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(usual, time.Now, func(error) bool { return false })
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { c.Keep(ctx) })
		made := &DataKey{Plaintext: []byte{1}}
		running.Go(func() {
			_, _ = c.Get(t.Context(), sealing, 1, func(ctx context.Context) (*DataKey, error) {
				<-ctx.Done()
				return made, nil // as if KMS had answered at the last moment
			})
		})
		synctest.Wait()
		stop()
		running.Wait()
		if !allZero(made.Plaintext) || c.Status().Keys != 0 {
			t.Errorf("%v is left, %d keys", made.Plaintext, c.Status().Keys)
		}
	})
}

// TestFloodOfOneKey: who opens thousands of things with one key pushes out what
// belongs to it, and not what others have.
func TestFloodOfOneKey(t *testing.T) {
	inBubble(t, usual, func(t *testing.T, c *Cache, k *kms) {
		get(t, c, k, 1, nil)
		for i := range maxKeys + 10 {
			if _, err := c.Get(t.Context(), ID{Key: "mine", What: fmt.Sprint(i)}, 1, k.fetch); err != nil {
				t.Fatal(err)
			}
		}
		if kept(c) == nil || c.Status().Keys != maxKeys {
			t.Errorf("%d keys are left, another's %v", c.Status().Keys, kept(c))
		}
	})
}
