package reliable

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	maxAttempts = 5 // of one call
	// A retry costs 1; each call brings retryRatio, and each second 1 so that a
	// quiet broker recovers. An outage thus adds a fifth to the load, not a
	// multiple of it.
	retryRatio   = 0.2
	retryReserve = 20

	firstBackoff   = 100 * time.Millisecond
	longestBackoff = 5 * time.Second
)

// budget limits retries to a part of the calls.
type budget struct {
	mu     sync.Mutex
	left   float64
	filled time.Time
}

func newBudget() *budget { return &budget{left: retryReserve, filled: time.Now()} }

// fill notes a call.
func (b *budget) fill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(retryRatio)
}

// take pays for a retry; false if the budget is spent.
func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(0)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (b *budget) add(n float64) {
	now := time.Now()
	b.left = min(b.left+n+now.Sub(b.filled).Seconds(), retryReserve)
	b.filled = now
}

func (b *budget) remaining() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(0)
	return int(b.left)
}

// backoff is how long to wait before attempt n+1: anything up to a bound that
// doubles ("Exponential Backoff And Jitter", AWS Architecture Blog, full jitter),
// on top of what the service asked for.
func backoff(n int, asked time.Duration) time.Duration {
	bound := min(firstBackoff<<(n-1), longestBackoff)
	//nolint:gosec // G404: jitter spreads load and keeps no secret
	return asked + rand.N(bound)
}
