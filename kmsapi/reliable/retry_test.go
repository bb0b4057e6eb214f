package reliable

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// TestFullJitter: waits fill the whole range, from nothing to a bound that
// doubles.
func TestFullJitter(t *testing.T) {
	for n, bound := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 4: 800 * time.Millisecond, 10: longestBackoff,
	} {
		least, most := time.Hour, time.Duration(0)
		for range 1000 {
			wait := backoff(n, 0)
			least, most = min(least, wait), max(most, wait)
		}
		if least < 0 || least > bound/10 || most > bound || most < bound*9/10 {
			t.Errorf("after attempt %d between %v and %v, want 0 to %v", n, least, most, bound)
		}
	}
	if wait := backoff(1, time.Minute); wait < time.Minute || wait > time.Minute+firstBackoff {
		t.Errorf("%v although a minute was asked for", wait)
	}
}

func TestAttemptsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vpc := newFake(-1, throttled)
		c := newClient(t, Config{}, vpc)
		if err := encrypt(t.Context(), c); !errors.Is(err, throttled) || vpc.count() != maxAttempts {
			t.Errorf("%v after %d attempts", err, vpc.count())
		}
		for i := range maxAttempts - 1 {
			if wait := vpc.times[i+1].Sub(vpc.times[i]); wait > firstBackoff<<i {
				t.Errorf("%v before attempt %d", wait, i+2)
			}
		}
	})
}

func TestRetryAfter(t *testing.T) {
	leave := *throttled
	leave.RetryAfter = 3 * time.Second
	synctest.Test(t, func(t *testing.T) {
		vpc := newFake(1, &leave)
		c := newClient(t, Config{}, vpc)
		began := time.Now()
		if err := encrypt(t.Context(), c); err != nil || time.Since(began) < leave.RetryAfter {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		vpc := newFake(1, &leave)
		c := newClient(t, Config{CallTimeout: 2 * time.Second}, vpc)
		began := time.Now()
		if err := encrypt(t.Context(), c); !errors.Is(err, &leave) || time.Since(began) != 0 {
			t.Errorf("%v after %v, want the refusal at once: the wait would outlast the call", err, time.Since(began))
		}
	})
}

// TestRetryBudget: an outage is not multiplied.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vpc := newFake(-1, throttled)
		c := newClient(t, Config{}, vpc)
		const workers, each = 10, 200
		const calls = workers * each
		began := time.Now()
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range each {
					encrypt(t.Context(), c)
				}
			})
		}
		wg.Wait()
		seconds := int(time.Since(began)/time.Second) + 1
		if n, most := vpc.count(), calls+calls/5+retryReserve+seconds; n > most || n < calls+calls/10 {
			t.Errorf("%d attempts of %d calls in %d s, want at most %d", n, calls, seconds, most)
		}
		time.Sleep(time.Minute)
		if n := c.Status().RetryBudget; n != retryReserve {
			t.Errorf("a minute later there is a budget of %d", n)
		}
	})
}

// TestDeadlineOfACall: waiting, attempts and pauses together end in time.
func TestDeadlineOfACall(t *testing.T) {
	hanging := &fake{do: func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return &kmsapi.Error{Cause: ctx.Err()}
	}}
	for _, tt := range []struct {
		name            string
		config          Config
		caller          time.Duration
		took            time.Duration
		attempts        int
		failuresCounted int
	}{
		{"of the client", Config{CallTimeout: 7 * time.Second, AttemptTimeout: 3 * time.Second}, time.Hour, 7 * time.Second, 3, 2},
		{"of the caller", Config{}, 6 * time.Second, 6 * time.Second, 2, 1},
		{"of a hasty caller", Config{}, time.Second, time.Second, 1, 0},
		{"of a caller that waited long", Config{}, 3 * time.Second, 3 * time.Second, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vpc := &fake{do: hanging.do}
				c := newClient(t, tt.config, vpc)
				ctx, cancel := context.WithTimeout(t.Context(), tt.caller)
				defer cancel()
				began := time.Now()
				err := encrypt(ctx, c)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != tt.took || vpc.count() != tt.attempts {
					t.Errorf("%v after %v and %d attempts, want %v and %d", err, time.Since(began), vpc.count(), tt.took, tt.attempts)
				}
				if n := c.Status().Endpoints[0].Failures; n != tt.failuresCounted {
					t.Errorf("%d failures are held against the endpoint, want %d", n, tt.failuresCounted)
				}
			})
		})
	}
}

// TestCanceled: a caller that is gone is not worked for.
func TestCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vpc := newFake(-1, throttled)
		c := newClient(t, Config{}, vpc)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := encrypt(ctx, c); !errors.Is(err, context.Canceled) || vpc.count() != 0 {
			t.Errorf("%v after %d attempts", err, vpc.count())
		}
		ctx, cancel = context.WithCancel(t.Context())
		vpc.do = func(context.Context, string) error {
			cancel()
			return &kmsapi.Error{Cause: context.Canceled}
		}
		if err := encrypt(ctx, c); !errors.Is(err, context.Canceled) || vpc.count() != 1 || c.Status().Endpoints[0].Failures != 0 {
			t.Errorf("%v after %d attempts, %+v", err, vpc.count(), c.Status().Endpoints[0])
		}
	})
}

// TestTheRealFailureIsTold: why there was no further attempt says less than what
// the last one met.
func TestTheRealFailureIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &recorder{}
		c := newClient(t, Config{Quotas: Quotas{Crypto: 1}, CallTimeout: time.Second, Observer: seen}, newFake(-1, serverError))
		if err := encrypt(t.Context(), c); !errors.Is(err, serverError) {
			t.Errorf("got %v", err)
		}
		if want := []string{"Encrypt vpc 1 broken", "Encrypt broken 1"}; !slices.Equal(seen.events, want) {
			t.Errorf("observed %q", seen.events)
		}
	})
}

// TestStrangeErrors: whatever an endpoint returns becomes a *kmsapi.Error, of
// unknown outcome.
func TestStrangeErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		strange := errors.New("strange")
		vpc := newFake(-1, strange)
		err := invoke(t.Context(), newClient(t, Config{}, vpc), "CreateKey")
		if e, ok := errors.AsType[*kmsapi.Error](err); !ok || e.Operation != "CreateKey" || !errors.Is(err, strange) || !e.OutcomeUnknown() || vpc.count() != 1 {
			t.Errorf("got %#v after %d attempts", err, vpc.count())
		}
	})
}
