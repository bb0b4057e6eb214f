// Package health knows whether something works because it was tried a moment ago,
// and not for each who asks.
package health

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

const (
	// goodFor and badFor are how long an outcome stands: a recovery is to be seen
	// soon.
	goodFor = 30 * time.Second
	badFor  = 5 * time.Second
	// tryTime is less than the 3 seconds that kube-apiserver waits unless it is told
	// otherwise, so that it hears why.
	tryTime = 2 * time.Second
)

// Check tries something at most as often as its outcomes last, whoever asks. Its
// methods may be called concurrently.
type Check struct {
	try  func(context.Context) error
	turn chan struct{} // held by who tries

	mu    sync.Mutex
	known bool
	tried time.Time
	err   error
	doubt int // how often there was
}

// New makes a Check of what try does.
func New(try func(context.Context) error) *Check {
	return &Check{try: try, turn: make(chan struct{}, 1)}
}

// Ask returns what is wrong, nil for nothing. To be throttled is no sickness: then
// something answered.
func (c *Check) Ask(ctx context.Context) error {
	if known, err := c.last(); known {
		return err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if known, err := c.last(); known {
		return err // who had the turn before found out
	}
	limited, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	began, doubt := time.Now(), c.doubts()
	err := c.try(limited)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err() // which says nothing about what was tried
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		err = failure.New(failure.Unavailable, "SLOW", "no answer within %v", tryTime)
	case failure.From(err).Kind == failure.Throttled:
		err = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// What failed in the meantime may have begun to fail after it was tried.
	c.known, c.tried, c.err = c.doubt == doubt, began, err
	return err
}

func (c *Check) doubts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doubt
}

// Doubt has the next who asks try anew, because something failed.
func (c *Check) Doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = false
	c.doubt++
}

func (c *Check) last() (known bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lasts := goodFor
	if c.err != nil {
		lasts = badFor
	}
	return c.known && time.Since(c.tried) < lasts, c.err
}
