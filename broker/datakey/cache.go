package datakey

import (
	"context"
	"sync"
	"time"
)

// Cache keeps data keys. Its methods may be called concurrently.
type Cache struct {
	limits      Limits
	now         func() time.Time
	unreachable func(error) bool
	wake        chan struct{} // tells Keep that there is something new
	stopping    context.Context
	stop        context.CancelFunc
	fetching    sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	entries map[ID]*entry
	flights map[ID]*flight
	stats   Stats
}

// New makes a cache. An error for which unreachable is true says nothing about the
// key, only that KMS did not answer. [Cache.Keep] has to run.
func New(limits Limits, now func() time.Time, unreachable func(error) bool) *Cache {
	c := &Cache{
		limits: limits, now: now, unreachable: unreachable,
		wake: make(chan struct{}, 1), entries: map[ID]*entry{}, flights: map[ID]*flight{},
	}
	c.stopping, c.stop = context.WithCancel(context.Background())
	return c
}

// Fetch asks KMS for a data key.
type Fetch func(ctx context.Context) (*DataKey, error)

// Get returns a copy of a data key for one message of size bytes, which the caller
// wipes. It asks KMS when there is none that may be used.
func (c *Cache) Get(ctx context.Context, id ID, size uint64, fetch Fetch) (*DataKey, error) {
	for {
		found, f, err := c.look(ctx, id, size, fetch)
		if found != nil || err != nil {
			return found, err
		}
		if found, err = c.await(ctx, f, size); found != nil || err != nil {
			return found, err
		}
	}
}

// look returns a key of the cache, or the flight to wait for.
func (c *Cache) look(ctx context.Context, id ID, size uint64, fetch Fetch) (*DataKey, *flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil, nil, context.Canceled
	}
	now := c.now()
	if e := c.entries[id]; e != nil && e.room(size, c.limits) {
		switch {
		case e.current(now, c.limits):
			e.used = now
			c.stats.Cached++
			return e.cached(size), nil, nil
		case e.offline(now, c.limits) && now.Before(e.retry):
			c.stats.Offline++
			return e.cached(size), nil, nil
		}
	}
	f := c.flights[id]
	if f == nil {
		f = c.depart(ctx, id, size, fetch)
	}
	f.waiting++
	return nil, f, nil
}

// await waits for a flight. It returns nothing when others have used up the key
// that it brought.
func (c *Cache) await(ctx context.Context, f *flight, size uint64) (*DataKey, error) {
	defer c.leave(f)
	var impatient <-chan time.Time
	if c.mayOffline(f.id, size) {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		impatient = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-impatient:
			if found := c.takeOffline(f.id, size); found != nil {
				return found, nil
			}
			impatient = nil
			continue
		case <-f.landed:
		}
		if f.err == nil {
			return c.share(f, size), nil
		}
		if c.unreachable(f.err) {
			if found := c.takeOffline(f.id, size); found != nil {
				return found, nil
			}
		}
		return nil, f.err
	}
}

// share takes from what a flight brought, even if it has expired since: it was
// wanted when it was asked for.
func (c *Cache) share(f *flight, size uint64) *DataKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := f.brought; !e.wiped && e.room(size, c.limits) {
		e.used = c.now()
		c.stats.Fetched++
		return e.take(size)
	}
	return nil
}

// mayOffline is whether takeOffline would find something.
func (c *Cache) mayOffline(id ID, size uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offline(id, size) != nil
}

// takeOffline returns a key that may be used because KMS cannot be reached.
func (c *Cache) takeOffline(id ID, size uint64) *DataKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.offline(id, size); e != nil {
		c.stats.Offline++
		return e.cached(size)
	}
	return nil
}

func (c *Cache) offline(id ID, size uint64) *entry {
	if e := c.entries[id]; e != nil && e.offline(c.now(), c.limits) && e.room(size, c.limits) {
		return e
	}
	return nil
}

// Status tells how the cache is.
func (c *Cache) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{Limits: c.limits, Keys: len(c.entries), Stats: c.stats}
}
