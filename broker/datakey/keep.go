package datakey

import (
	"context"
	"time"
)

// Keep wipes keys as they expire, until ctx ends. Then it ends the calls to KMS,
// waits for them and wipes all.
func (c *Cache) Keep(ctx context.Context) {
	defer c.close()
	for {
		timer := time.NewTimer(c.sweep())
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-c.wake:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// idle is how long Keep sleeps that has nothing to wipe.
const idle = time.Hour

// sweep wipes what has expired and returns how long it takes until the next key
// does, if it is not used before.
func (c *Cache) sweep() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, next := c.now(), idle
	for id, e := range c.entries {
		left := e.ceases(c.limits).Add(c.limits.Offline).Sub(now)
		if left <= 0 {
			c.remove(id)
			continue
		}
		next = min(next, left)
	}
	return next
}

func (c *Cache) close() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.stop()
	c.fetching.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.entries {
		c.remove(id)
	}
}

// Drop wipes all data keys of a key, and lets nothing that is under way into the
// cache.
func (c *Cache) Drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.entries {
		if id.Key == key {
			c.remove(id)
		}
	}
	for id, f := range c.flights {
		if id.Key == key {
			f.dropped = true
			delete(c.flights, id) // who comes now asks anew
		}
	}
}

// remove wipes a key of the cache. The caller holds c.mu.
func (c *Cache) remove(id ID) {
	if e := c.entries[id]; e != nil {
		e.wipe()
		delete(c.entries, id)
	}
}

// makeRoom removes what was not used for the longest time, so that there is place for
// one more: of the key that has the most, so that who may use one key does not push out
// the data keys of others.
func (c *Cache) makeRoom() {
	for len(c.entries) >= maxKeys {
		count, most := map[string]int{}, ""
		for id := range c.entries {
			if count[id.Key]++; count[id.Key] > count[most] {
				most = id.Key
			}
		}
		var oldest ID
		var found *entry
		for id, e := range c.entries {
			if id.Key == most && (found == nil || e.used.Before(found.used)) {
				oldest, found = id, e
			}
		}
		c.remove(oldest)
	}
}

func (c *Cache) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
