package identity

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

const (
	// fetchTimeout bounds one fetch with all its requests.
	fetchTimeout = 15 * time.Second
	firstRetry   = time.Second
	lastRetry    = 30 * time.Second
)

// Source gives the credentials that it fetched last, until they expire. It may be
// used concurrently: however many ask, one fetch is under way at a time. The
// first call after three quarters of the credentials' life starts the next fetch
// and does not wait for it; only who finds no credentials that are still good
// waits. A fetch that failed is repeated after a second, and then less and less
// often up to once in 30 seconds.
type Source struct {
	name  string
	fetch func(context.Context) (session, error)
	log   *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	current session
	next    time.Time     // no fetch before
	pause   time.Duration // after the next failure
	failure error         // of the last fetch
	running chan struct{} // closed when the fetch under way has ended
	closed  bool
}

var _ kmsapi.CredentialSource = (*Source)(nil)

// newSource makes a source that logs, without secrets, when a fetch fails; a nil
// log logs nothing.
func newSource(name string, log *slog.Logger, fetch func(context.Context) (session, error)) *Source {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{name: name, fetch: fetch, log: log, pause: firstRetry}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// errClosed is met by calls that outlive their daemon.
var errClosed = errors.New("the credentials are not refreshed any more")

// Credentials implements [kmsapi.CredentialSource]. Its errors are [*Error], or
// that of ctx.
func (s *Source) Credentials(ctx context.Context) (kmsapi.Credentials, error) {
	for {
		s.mu.Lock()
		now := time.Now()
		running := s.running
		if running == nil && !s.closed && !now.Before(s.next) {
			running = s.start()
		}
		current, failure := s.current, s.failure
		if s.closed {
			failure = errClosed
		}
		s.mu.Unlock()

		switch {
		case now.Before(current.expires):
			return current.credentials(), nil
		case running == nil:
			return kmsapi.Credentials{}, failure
		}
		select {
		case <-running:
		case <-ctx.Done():
			return kmsapi.Credentials{}, ctx.Err()
		}
	}
}

// start begins a fetch. It belongs to the source and not to the call that needs
// it first, whose end must not disappoint the others. The caller holds mu.
func (s *Source) start() chan struct{} {
	running := make(chan struct{})
	s.running = running
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, fetchTimeout)
		defer cancel()
		fetched, err := s.fetch(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.note(fetched, err)
		s.running = nil
		close(running)
	})
	return running
}

// note takes over what a fetch brought and decides when the next one is due.
func (s *Source) note(fetched session, err error) {
	now := time.Now()
	if err == nil && !now.Before(fetched.expires) {
		err = &Error{
			Source: s.name, Tried: "fetch credentials", Err: errors.New("those that came have expired already"),
			Hint: "compare this machine's clock with the true time",
		}
	}
	if err != nil {
		s.failure = err
		s.next = now.Add(s.pause/2 + rand.N(s.pause/2)) //nolint:gosec // spreads load, keeps no secret
		s.pause = min(2*s.pause, lastRetry)
		if s.ctx.Err() == nil {
			s.log.Warn("credentials not refreshed", "source", s.name, "good_until", s.current.expires, "error", err)
		}
		return
	}
	// A service may give the same credentials again until it has new ones: then
	// little life is left, and the next fetch comes the sooner.
	life := fetched.expires.Sub(now)
	ahead := life/4 + rand.N(life/16+1) //nolint:gosec // spreads load, keeps no secret
	s.current, s.failure, s.pause = fetched, nil, firstRetry
	s.next = now.Add(max(life-ahead, firstRetry))
}

// Close ends a fetch that is under way. Credentials that are still good are given
// on, and none are fetched any more.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}
