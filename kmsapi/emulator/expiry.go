package emulator

import (
	"math"
	"time"
)

// tokenMemory is how long an expired import token is remembered, so that it can
// be called expired instead of invalid.
const tokenMemory = 30 * 24 * time.Hour

// advance lets happen what was due by now: material expires, keys rotate and
// are deleted, import tokens run out. Every request calls it first, so nothing is ever seen
// past its time.
func (r *region) advance(now time.Time) error {
	if now.Unix() < r.due.Load() {
		return nil
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	b, err := r.expired(now)
	if err != nil {
		return err
	}
	if len(b.keys)+len(b.tokens) > 0 {
		if err := r.commit(b); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due.Store(math.MaxInt64)
	for _, k := range r.keys {
		r.expect(k.nextEvent())
	}
	for _, t := range r.tokens {
		r.expect(t.nextEvent())
	}
	return nil
}

// expired is what time has done by now.
func (r *region) expired(now time.Time) (batch, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	b := batch{keys: map[string]*key{}, aliases: map[string]string{}, tokens: map[string]*importToken{}}
	past := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	for id, k := range r.keys {
		switch {
		case past(k.DeleteAt):
			b.keys[id] = nil
		case past(k.MaterialExpiresAt):
			c := k.clone()
			c.dropMaterial()
			b.keys[id] = c
		case past(k.rotationDue()):
			c := k.clone()
			if err := c.rotate(now); err != nil {
				return batch{}, err
			}
			b.keys[id] = c
		}
	}
	for name, id := range r.aliases {
		if gone, ok := b.keys[id]; ok && gone == nil {
			b.aliases[name] = ""
		}
	}
	for text, t := range r.tokens {
		gone, ok := b.keys[t.KeyID]
		switch {
		case ok && gone == nil, past(t.ExpiresAt.Add(tokenMemory)):
			b.tokens[text] = nil
		case t.private != nil && past(t.ExpiresAt):
			b.tokens[text] = &importToken{KeyID: t.KeyID, Algorithm: t.Algorithm, ExpiresAt: t.ExpiresAt}
		}
	}
	return b, nil
}
