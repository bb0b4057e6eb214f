package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// track remembers a key before it is made, so that it is removed also when
// nobody knows whether it was.
func (s *suite) track(id hsm.KeyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tracked[id] = true
	s.witness.watch(id)
}

// pending lists the keys that may still be on the token.
func (s *suite) pending() []hsm.KeyID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []hsm.KeyID
	for id, there := range s.tracked {
		if there {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// ours reports whether the suite made the key, or tried to.
func (s *suite) ours(id hsm.KeyID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.tracked[id]
	return ok
}

// remove destroys the keys of the checks so far, also when ctx has ended. What
// does not go is tried again later and reported in the end.
func (s *suite) remove(ctx context.Context) {
	ids := s.pending()
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	token, err := s.ensure(ctx)
	if err != nil {
		return
	}
	err = within(removeTime+grace, func() error {
		for _, id := range ids {
			err := token.DestroyKey(ctx, id)
			_, malformed := hsm.ParseKeyID(string(id))
			switch {
			case err == nil || errors.Is(err, hsm.NotFound) || malformed != nil || errors.Is(err, hsm.NotPermitted) && absent(ctx, token, id):
				s.mu.Lock()
				s.tracked[id] = false
				s.mu.Unlock()
			case errors.Is(err, hsm.TokenGone):
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.close(ctx) // so that the next one to need a token gets a fresh one
	}
}

// absent reports whether a key that may not be destroyed was never made: a role that
// may do neither leaves nothing behind.
func absent(ctx context.Context, token hsm.Token, id hsm.KeyID) bool {
	_, err := token.Key(ctx, id)
	return errors.Is(err, hsm.NotFound)
}

// untouched reports whether no key was ever made.
func (s *suite) untouched() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tracked) == 0
}

// appearance is what a key of somebody else looks like, as far as it must not
// change.
func appearance(k hsm.Key) string {
	k.Vendor = nil
	return fmt.Sprintf("%+v", k)
}

// survey counts the keys of others.
func (s *suite) survey(keys []hsm.Key) map[string]int {
	seen := make(map[string]int)
	for _, k := range keys {
		if !s.ours(k.ID) {
			seen[appearance(k)]++
		}
	}
	return seen
}

// remember looks at the token before anything is done to it.
func (s *suite) remember(ctx context.Context, token hsm.Token) {
	keys, err := token.Keys(ctx)
	if err != nil {
		s.foreignErr = err
		return
	}
	s.foreign = s.survey(keys)
	for _, k := range keys {
		if strings.HasPrefix(k.Label, s.config.Prefix) && k.ID != "" {
			s.earlier = append(s.earlier, k.ID)
		}
	}
}
