package health

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

var errSick = errors.New("sick")

// patient answers tries.
type patient struct {
	err   error
	takes time.Duration
	tries int
}

func (p *patient) try(ctx context.Context) error {
	p.tries++
	select {
	case <-time.After(p.takes):
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func inBubble(t *testing.T, f func(t *testing.T, c *Check, p *patient)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &patient{}
		f(t, New(p.try), p)
	})
}

func TestOutcomesStand(t *testing.T) {
	inBubble(t, func(t *testing.T, c *Check, p *patient) {
		asked := func(tries int, want error) {
			t.Helper()
			if err := c.Ask(t.Context()); !errors.Is(err, want) || p.tries != tries {
				t.Fatalf("%v after %d tries, want %v after %d", err, p.tries, want, tries)
			}
		}
		asked(1, nil)
		p.err = errSick
		time.Sleep(goodFor - time.Nanosecond)
		asked(1, nil)
		time.Sleep(time.Nanosecond)
		asked(2, errSick)
		p.err = nil
		time.Sleep(badFor - time.Nanosecond)
		asked(2, errSick)
		time.Sleep(time.Nanosecond)
		asked(3, nil)
		p.err = errSick
		c.Doubt()
		asked(4, errSick)
	})
}

func TestThrottledIsNotSick(t *testing.T) {
	inBubble(t, func(t *testing.T, c *Check, p *patient) {
		p.err = failure.New(failure.Throttled, "KMS", "slow down")
		if err := c.Ask(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestSlow(t *testing.T) {
	inBubble(t, func(t *testing.T, c *Check, p *patient) {
		p.takes = time.Minute
		began := time.Now()
		if err := c.Ask(t.Context()); failure.From(err).Reason != "SLOW" || time.Since(began) != tryTime {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestManyAsk: one tries, and all hear of it.
func TestManyAsk(t *testing.T) {
	inBubble(t, func(t *testing.T, c *Check, p *patient) {
		p.err, p.takes = errSick, time.Second
		var asking sync.WaitGroup
		for range 100 {
			asking.Go(func() {
				if err := c.Ask(t.Context()); !errors.Is(err, errSick) {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		if p.tries != 1 {
			t.Errorf("%d tries", p.tries)
		}
	})
}

// TestWhoLeaves: says nothing about what was tried, and the next one tries.
func TestWhoLeaves(t *testing.T) {
	inBubble(t, func(t *testing.T, c *Check, p *patient) {
		p.takes = time.Second
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var asking sync.WaitGroup
		asking.Go(func() {
			if err := c.Ask(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who left: %v", err)
			}
		})
		synctest.Wait()
		if err := c.Ask(t.Context()); err != nil || p.tries != 2 {
			t.Errorf("who stayed: %v after %d tries", err, p.tries)
		}
		asking.Wait()
	})
}

// TestDoubtMeanwhile: what failed while it was tried makes the outcome old.
func TestDoubtMeanwhile(t *testing.T) {
	inBubble(t, func(t *testing.T, c *Check, p *patient) {
		p.takes = time.Second
		var asking sync.WaitGroup
		asking.Go(func() {
			if err := c.Ask(t.Context()); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		c.Doubt()
		asking.Wait()
		p.err = errSick
		if err := c.Ask(t.Context()); !errors.Is(err, errSick) {
			t.Errorf("after a doubt: %v", err)
		}
	})
}
