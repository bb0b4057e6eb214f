package backend

import (
	"context"
	"sync"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// Set is all configured backends, in the order of the configuration.
type Set struct {
	backends []*Backend
}

// NewSet makes a set; Run brings its backends to life.
func NewSet(backends ...*Backend) *Set { return &Set{backends: backends} }

// Run supervises all backends until ctx ends and every process is gone.
func (s *Set) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, b := range s.backends {
		wg.Go(func() { b.Run(ctx) })
	}
	wg.Wait()
}

// AwaitStart returns when every backend has been started once, in vain or not, or
// waits for a person, or when ctx ends.
func (s *Set) AwaitStart(ctx context.Context) {
	for _, b := range s.backends {
		b.awaitStart(ctx)
	}
}

// Get returns the backend of that name.
func (s *Set) Get(name string) (*Backend, error) {
	for _, b := range s.backends {
		if b.config.Name == name {
			return b, nil
		}
	}
	return nil, failure.New(failure.NotFound, "BACKEND_NOT_FOUND", "there is no backend %.80q", name).
		WithHint("`kmsbrokerctl backend list` shows the backends; they are configured as [backend.NAME]")
}

// Status returns the status of every backend.
func (s *Set) Status() []Status {
	all := make([]Status, len(s.backends))
	for i, b := range s.backends {
		all[i] = b.Status()
	}
	return all
}

// All returns the backends.
func (s *Set) All() []*Backend { return s.backends }
