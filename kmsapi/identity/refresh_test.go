package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// issuer fetches sessions of an hour, numbered from 1, until it is told to fail.
type issuer struct {
	mu    sync.Mutex
	count int
	life  time.Duration
	fails error
	hold  chan struct{} // a fetch waits for it when it is not nil
}

func (i *issuer) fetch(ctx context.Context) (session, error) {
	i.mu.Lock()
	i.count++
	n, fails, hold, life := i.count, i.fails, i.hold, i.life
	i.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return session{}, ctx.Err()
		}
	}
	if fails != nil {
		return session{}, fails
	}
	c := kmsapi.Credentials{AccessKeyID: fmt.Sprintf("STS.%d", n), AccessKeySecret: "hidden-secret", SecurityToken: "hidden-token"}
	return newSession(c, time.Now().Add(life).UTC().Format(kmsapi.TimeLayout))
}

func (i *issuer) set(fails error, hold chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fails, i.hold = fails, hold
}

func (i *issuer) fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.count
}

// inBubble runs a test with a clock of its own.
func inBubble(t *testing.T, test func(t *testing.T, i *issuer, s *Source, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		i, log := &issuer{life: time.Hour}, &bytes.Buffer{}
		s := newSource("test", slog.New(slog.NewTextHandler(log, nil)), i.fetch)
		defer s.Close()
		test(t, i, s, log)
	})
}

func expect(t *testing.T, s *Source, id string) {
	t.Helper()
	if c, err := s.Credentials(t.Context()); err != nil || c.AccessKeyID != id {
		t.Errorf("got %v, %v, want %s", c, err, id)
	}
}

func TestOneFetchForManyWaiters(t *testing.T) {
	inBubble(t, func(t *testing.T, i *issuer, s *Source, _ *bytes.Buffer) {
		hold := make(chan struct{})
		i.set(nil, hold)
		var waiters sync.WaitGroup
		for range 50 {
			waiters.Go(func() { expect(t, s, "STS.1") })
		}
		synctest.Wait()
		close(hold)
		waiters.Wait()
		if n := i.fetches(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestRefreshedAheadWithoutWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, i *issuer, s *Source, _ *bytes.Buffer) {
		expect(t, s, "STS.1")
		time.Sleep(40 * time.Minute)
		expect(t, s, "STS.1")
		if n := i.fetches(); n != 1 {
			t.Errorf("%d fetches after 40 of 60 minutes", n)
		}
		hold := make(chan struct{})
		i.set(nil, hold)
		time.Sleep(6 * time.Minute)
		for range 10 {
			expect(t, s, "STS.1") // at once: nothing moves the clock here
		}
		synctest.Wait()
		if n := i.fetches(); n != 2 {
			t.Errorf("%d fetches after 46 of 60 minutes, want one more", n)
		}
		close(hold)
		synctest.Wait()
		expect(t, s, "STS.2")
	})
}

func TestRefreshTimesVary(t *testing.T) {
	inBubble(t, func(t *testing.T, i *issuer, _ *Source, _ *bytes.Buffer) {
		moments := map[time.Time]bool{}
		for range 20 {
			s := newSource("test", slog.New(slog.DiscardHandler), i.fetch)
			expect(t, s, fmt.Sprintf("STS.%d", i.fetches()+1))
			ahead := time.Until(s.next)
			if ahead < 41*time.Minute || ahead > 45*time.Minute {
				t.Errorf("next fetch in %v", ahead)
			}
			moments[s.next] = true
			s.Close()
		}
		if len(moments) < 2 {
			t.Error("everybody would refresh at the same moment")
		}
	})
}

func TestOldCredentialsUntilTheyExpire(t *testing.T) {
	inBubble(t, func(t *testing.T, i *issuer, s *Source, log *bytes.Buffer) {
		expect(t, s, "STS.1")
		refused := errors.New("STS is away")
		i.set(refused, nil)
		for range 59 {
			time.Sleep(time.Minute)
			expect(t, s, "STS.1")
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "STS is away") {
			t.Errorf("the failures are not in the log: %s", log)
		}
		time.Sleep(time.Minute)
		if c, err := s.Credentials(t.Context()); !errors.Is(err, refused) {
			t.Errorf("after the expiry: %v, %v", c, err)
		}
		i.set(nil, nil)
		time.Sleep(lastRetry)
		n := i.fetches() + 1
		expect(t, s, fmt.Sprintf("STS.%d", n))
	})
}

func TestFailuresAreNotHammered(t *testing.T) {
	inBubble(t, func(t *testing.T, i *issuer, s *Source, _ *bytes.Buffer) {
		refused := errors.New("STS is away")
		i.set(refused, nil)
		for range 3600 {
			if _, err := s.Credentials(t.Context()); !errors.Is(err, refused) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := i.fetches(); n < 12 || n > 36 {
			t.Errorf("%d fetches in six minutes of failure", n)
		}
	})
}

func TestSameCredentialsAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *issuer, _ *Source, _ *bytes.Buffer) {
		expires := time.Now().Add(6 * time.Hour)
		fetches := 0
		s := newSource("test", slog.New(slog.DiscardHandler), func(context.Context) (session, error) {
			fetches++
			return session{func() kmsapi.Credentials { return kmsapi.Credentials{AccessKeyID: "STS.same"} }, expires}, nil
		})
		for time.Now().Before(expires) {
			expect(t, s, "STS.same")
			time.Sleep(time.Second)
		}
		s.Close()
		if fetches < 3 || fetches > 20 {
			t.Errorf("%d fetches of credentials that do not change for six hours", fetches)
		}
	})
}

func TestImpatientCallerDisappointsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, i *issuer, s *Source, _ *bytes.Buffer) {
		hold := make(chan struct{})
		i.set(nil, hold)
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var waiters sync.WaitGroup
		waiters.Go(func() {
			if _, err := s.Credentials(impatient); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the impatient one got %v", err)
			}
		})
		synctest.Wait()
		waiters.Go(func() { expect(t, s, "STS.1") })
		time.Sleep(2 * time.Second)
		close(hold)
		waiters.Wait()
	})
}

func TestExpiredOnArrival(t *testing.T) {
	inBubble(t, func(t *testing.T, i *issuer, s *Source, _ *bytes.Buffer) {
		i.life = -time.Minute
		_, err := s.Credentials(t.Context())
		if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Error(), "clock") {
			t.Errorf("got %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	inBubble(t, func(t *testing.T, i *issuer, s *Source, log *bytes.Buffer) {
		i.set(nil, make(chan struct{})) // for ever
		var waiters sync.WaitGroup
		waiters.Go(func() {
			if _, err := s.Credentials(t.Context()); !errors.Is(err, errClosed) {
				t.Errorf("the waiter got %v", err)
			}
		})
		synctest.Wait()
		begin := time.Now()
		s.Close()
		if time.Since(begin) > 0 {
			t.Error("Close waited for a fetch that it should have ended")
		}
		waiters.Wait()
		if _, err := s.Credentials(t.Context()); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
		if log.Len() > 0 {
			t.Errorf("closing is logged as a failure: %s", log)
		}
	})
}

func TestSourcePrintsNoSecret(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *issuer, s *Source, log *bytes.Buffer) {
		expect(t, s, "STS.1")
		fmt.Fprintf(log, "%v %+v %#v %v %+v", s, s, s, s.current, s.current)
		slog.New(slog.NewJSONHandler(log, nil)).Info("source", "source", s)
		if strings.Contains(log.String(), "hidden") {
			t.Errorf("a secret leaks in %s", log)
		}
	})
}
