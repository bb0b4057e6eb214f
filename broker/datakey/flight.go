package datakey

import (
	"context"
	"errors"
	"time"
)

// flight is one call to KMS and all who wait for it. It ends by itself, also when
// whoever began it has left.
type flight struct {
	id     ID
	size   uint64        // of the message that it is for
	asked  time.Time     // KMS was, from which the age counts
	landed chan struct{} // closed when the rest is there
	err    error

	// Guarded by Cache.mu.
	brought *entry // nil with err
	waiting int    // how many wait for it
	dropped bool   // nothing of it may be kept
	kept    bool   // it is in the cache, or was
}

// depart asks KMS. The caller holds c.mu.
func (c *Cache) depart(ctx context.Context, id ID, size uint64, fetch Fetch) *flight {
	f := &flight{id: id, size: size, asked: c.now(), landed: make(chan struct{})}
	c.flights[id] = f
	// With the values of ctx, which say in whose turn KMS is asked.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
	detach := context.AfterFunc(c.stopping, cancel)
	c.fetching.Go(func() {
		defer cancel()
		defer detach()
		brought, err := survive(func() (*DataKey, error) { return fetch(ctx) })
		c.land(f, brought, err)
	})
	return f
}

// survive keeps a panic from ending the daemon: nothing above this goroutine would
// recover it. Its value may hold anything and is not told.
func survive(fetch func() (*DataKey, error)) (brought *DataKey, err error) {
	defer func() {
		if recover() != nil {
			brought, err = nil, errPanic
		}
	}()
	return fetch()
}

var errPanic = errors.New("a panic ended the call for a data key")

// land puts what a flight brought into the cache.
func (c *Cache) land(f *flight, brought *DataKey, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.landed)
	now := c.now()
	if c.flights[f.id] == f {
		delete(c.flights, f.id)
	}
	if f.err = err; err != nil {
		c.stats.Failed++
	} else {
		c.stats.Answered++
		f.brought = &entry{DataKey: *brought, sealing: f.id.Sealing, used: now, expires: f.asked.Add(c.limits.Age)}
		if brought.Partial {
			f.brought.expires = f.asked.Add(min(c.limits.Age, partialAge))
		}
	}
	before := c.entries[f.id]
	switch {
	case f.dropped, c.stopped, f.id.Sealing && f.size > c.limits.MaxBytes:
		// For those who wait, and nobody else.
	case err != nil && before != nil && c.unreachable(err):
		before.retry = now.Add(askAgain)
	case err != nil:
		c.remove(f.id)
	default:
		c.remove(f.id)
		c.makeRoom()
		c.entries[f.id], f.kept = f.brought, true
		c.signal()
	}
	f.wipe()
}

// leave is the end of waiting for a flight.
func (c *Cache) leave(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.waiting--
	f.wipe()
}

// wipe overwrites what is not kept and was brought for nobody else. The caller holds
// Cache.mu.
func (f *flight) wipe() {
	if f.waiting == 0 && f.brought != nil && !f.kept {
		f.brought.wipe()
	}
}
