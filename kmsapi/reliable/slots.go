package reliable

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// slots bounds the attempts under way, and has further ones wait in line. Without
// it they would wait for connections in the order in which they came, and a
// caller with many slow calls would hold up all others.
type slots struct {
	most int

	mu   sync.Mutex
	used int
	line line
}

func newSlots(most int) *slots { return &slots{most: most} }

// acquire takes a slot, which must be released.
func (s *slots) acquire(ctx context.Context) error {
	caller := callerOf(ctx)
	s.mu.Lock()
	if s.used < s.most {
		s.used++
		s.mu.Unlock()
		return nil
	}
	t := s.line.join(caller)
	s.mu.Unlock()
	select {
	case <-t.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.line.leave(caller, t) {
		s.pass()
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &ThrottledError{Limit: fmt.Sprintf("%d calls in flight", s.most)}
	}
	return ctx.Err()
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass()
}

// pass gives a slot to the next in line, or back.
func (s *slots) pass() {
	if s.line.length > 0 {
		s.line.serve()
	} else {
		s.used--
	}
}

func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}
