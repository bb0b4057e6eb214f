package reliable

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// open makes CreateKey, which is not repeated, fail until the circuit opens.
func open(t *testing.T, c *Client) {
	t.Helper()
	for range failuresToOpen {
		if err := invoke(t.Context(), c, "CreateKey"); err == nil {
			t.Fatal("the endpoint works")
		}
	}
}

func TestCircuitOpensAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &recorder{}
		vpc := newFake(failuresToOpen+1, serverError)
		c := newClient(t, Config{Observer: seen}, vpc)
		open(t, c)
		began := time.Now()
		opened := c.Status().Endpoints[0]
		if opened.State != Open || !opened.Since.Equal(began) || !opened.RetryAt.Equal(began.Add(firstPause)) || opened.LastError != "CreateKey: InternalFailure (HTTP 500, request r-1)" {
			t.Errorf("status %+v", opened)
		}

		for range 100 {
			err := encrypt(t.Context(), c)
			cause, ok := errors.AsType[*UnavailableError](err)
			if !ok || cause.Endpoints[0] != opened || time.Since(began) != 0 {
				t.Fatalf("got %v after %v", err, time.Since(began))
			}
			if e, _ := errors.AsType[*kmsapi.Error](err); e.OutcomeUnknown() || e.Throttled() || e.Operation != "Encrypt" {
				t.Fatalf("got %#v", e)
			}
			for _, part := range []string{"vpc has not answered since ", "InternalFailure", "next attempt at "} {
				if !strings.Contains(err.Error(), part) {
					t.Fatalf("%q lacks %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "of-somebody") {
				t.Fatalf("%q tells one caller of another", err)
			}
		}
		if n := vpc.count(); n != failuresToOpen {
			t.Errorf("%d attempts", n)
		}

		time.Sleep(firstPause) // the probe fails, and the next pause is longer
		if err := invoke(t.Context(), c, "CreateKey"); !errors.Is(err, serverError) {
			t.Errorf("got %v", err)
		}
		again := c.Status().Endpoints[0]
		if again.State != Open || !again.Since.Equal(opened.Since) || time.Until(again.RetryAt) != 2*firstPause {
			t.Errorf("status %+v", again)
		}
		time.Sleep(2 * firstPause)
		if err := encrypt(t.Context(), c); err != nil {
			t.Error(err)
		}
		if s := c.Status().Endpoints[0]; s.State != Closed || s.Failures != 0 || !s.Since.Equal(time.Now()) || s.LastError == "" {
			t.Errorf("status %+v", s)
		}
		var states []string
		for _, e := range seen.events {
			if strings.HasPrefix(e, "vpc ") {
				states = append(states, e)
			}
		}
		if want := []string{"vpc open", "vpc half-open", "vpc open", "vpc half-open", "vpc closed"}; !slices.Equal(states, want) {
			t.Errorf("states %q", states)
		}
	})
}

// TestPausesEnd: pauses double up to a bound.
func TestPausesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vpc := newFake(-1, reset)
		c := newClient(t, Config{}, vpc)
		open(t, c)
		for range 10 {
			time.Sleep(time.Until(c.Status().Endpoints[0].RetryAt))
			invoke(t.Context(), c, "CreateKey")
		}
		if pause := time.Until(c.Status().Endpoints[0].RetryAt); pause != longestPause || vpc.count() != failuresToOpen+10 {
			t.Errorf("a pause of %v after %d attempts", pause, vpc.count())
		}
	})
}

// TestOneProbe: while one call tries, the others are refused; if its caller
// leaves, the next call tries.
func TestOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vpc := newFake(-1, reset)
		c := newClient(t, Config{}, vpc)
		open(t, c)
		time.Sleep(firstPause)
		vpc.do = func(ctx context.Context, _ string) error {
			select {
			case <-ctx.Done():
				return &kmsapi.Error{Cause: ctx.Err()}
			case <-time.After(time.Second):
				return nil
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { encrypt(ctx, c) })
		synctest.Wait()
		for range 10 {
			if _, ok := errors.AsType[*UnavailableError](encrypt(t.Context(), c)); !ok {
				t.Error("a second call got through")
			}
		}
		if s := c.Status().Endpoints[0].State; s != HalfOpen || vpc.count() != failuresToOpen+1 {
			t.Errorf("%s after %d attempts", s, vpc.count())
		}
		cancel()
		wg.Wait()
		if err := encrypt(t.Context(), c); err != nil || c.Status().Endpoints[0].State != Closed {
			t.Errorf("%v, %+v", err, c.Status().Endpoints[0])
		}
	})
}

// TestLateFailures: calls that began before the circuit opened and fail while
// another tries do not decide in its place.
func TestLateFailures(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		c := newCircuit(func(State) {})
		for range failuresToOpen + 1 {
			c.enter()
		}
		for range failuresToOpen {
			c.leave(false, broken, reset)
		}
		time.Sleep(firstPause)
		probe, _ := c.enter()
		c.leave(false, broken, reset)
		if c.state != HalfOpen {
			t.Errorf("after a late failure the circuit is %s", c.state)
		}
		c.leave(probe, answered, nil)
		if c.state != Closed {
			t.Errorf("after a success it is %s", c.state)
		}
	})
}

// TestLostProbe: a probe that never returns does not keep the circuit open for
// ever.
func TestLostProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(func(State) {})
		for range failuresToOpen {
			c.enter()
			c.leave(false, broken, reset)
		}
		time.Sleep(firstPause)
		if probe, ok := c.enter(); !probe || !ok {
			t.Fatal("no probe")
		}
		time.Sleep(longestPause)
		if probe, ok := c.enter(); !probe || !ok {
			t.Error("nobody tries any more")
		}
	})
}

// TestWhatOpensACircuit: only failures of the endpoint, one after the other.
func TestWhatOpensACircuit(t *testing.T) {
	for _, tt := range []struct {
		name    string
		failure error
		state   State
	}{
		{"no connection", unreachable, Open},
		{"reset", reset, Open},
		{"answer cut short", cutShort, Open},
		{"server error", serverError, Open},
		{"HTML 502", badGateway, Open},
		{"redirect", redirected, Open},
		{"throttled", throttled, Closed},
		{"throttled by the gateway", gatewayThrottle, Closed},
		{"refused", refused, Closed},
		{"odd metadata", malformed, Closed},
		{"bad parameters", badContext, Closed},
		{"canceled", &kmsapi.Error{Cause: context.Canceled}, Closed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, Config{}, newFake(-1, tt.failure))
				for range 3 * failuresToOpen {
					invoke(t.Context(), c, "CreateAlias")
				}
				if s := c.Status().Endpoints[0].State; s != tt.state {
					t.Errorf("the circuit is %s", s)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := newClient(t, Config{}, &fake{do: func(context.Context, string) error {
			if n++; n%failuresToOpen == 0 {
				return refused
			}
			return reset
		}})
		for range 5 * failuresToOpen {
			invoke(t.Context(), c, "CreateAlias")
		}
		if s := c.Status().Endpoints[0].State; s != Closed {
			t.Errorf("the circuit is %s although the endpoint answers now and then", s)
		}
	})
}

func TestFallback(t *testing.T) {
	t.Run("what was not sent goes to the next endpoint", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			vpc, public := newFake(-1, unreachable), newFake(0, nil)
			c := newClient(t, Config{Quotas: Quotas{CreateKey: 100}}, vpc, public)
			began := time.Now()
			for _, name := range []string{"CreateKey", "Encrypt", "EnableKey"} {
				if err := invoke(t.Context(), c, name); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(began); took != 0 {
				t.Errorf("it took %v", took)
			}
			if !slices.Equal(vpc.calls, public.calls) {
				t.Errorf("%v and %v", vpc.calls, public.calls)
			}
		})
	})
	t.Run("what may have been done does not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			vpc, public := newFake(-1, reset), newFake(0, nil)
			c := newClient(t, Config{}, vpc, public)
			open(t, c)
			if n := public.count(); n != 0 {
				t.Errorf("%d keys were made twice", n)
			}
			// The endpoint is known to be away, so a new call is not sent there.
			if err := invoke(t.Context(), c, "CreateKey"); err != nil || public.count() != 1 || vpc.count() != failuresToOpen {
				t.Errorf("%v, %d and %d", err, vpc.count(), public.count())
			}
		})
	})
	t.Run("a refusal stays a refusal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, failure := range []error{refused, throttled} {
				vpc, public := newFake(-1, failure), newFake(0, nil)
				c := newClient(t, Config{}, vpc, public)
				if err := encrypt(t.Context(), c); !errors.Is(err, failure) || public.count() != 0 {
					t.Errorf("%v, %d", err, public.count())
				}
			}
		})
	})
	t.Run("the preferred endpoint is used again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			vpc, public := newFake(failuresToOpen, unreachable), newFake(0, nil)
			c := newClient(t, Config{}, vpc, public)
			for range 2 * failuresToOpen {
				if err := encrypt(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			if vpc.count() != failuresToOpen || public.count() != 2*failuresToOpen {
				t.Errorf("%d and %d", vpc.count(), public.count())
			}
			time.Sleep(firstPause)
			for range 3 {
				if err := encrypt(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			if vpc.count() != failuresToOpen+3 || public.count() != 2*failuresToOpen {
				t.Errorf("%d and %d", vpc.count(), public.count())
			}
		})
	})
	t.Run("all are away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			vpc, public := newFake(-1, unreachable), newFake(-1, unreachable)
			c := newClient(t, Config{}, vpc, public)
			for c.available() {
				encrypt(t.Context(), c)
			}
			err := encrypt(t.Context(), c)
			if cause, ok := errors.AsType[*UnavailableError](err); !ok || len(cause.Endpoints) != 2 || !strings.Contains(err.Error(), "; public has not answered") {
				t.Errorf("got %v", err)
			}
		})
	})
}
