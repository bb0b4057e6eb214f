package reliable

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// TestQuotas: however many ask at once, no second sees more than a tenth above
// the quota, and nothing that is allowed is wasted.
func TestQuotas(t *testing.T) {
	for _, tt := range []struct {
		operation string
		quotas    Quotas
		perSecond int
	}{
		{"Encrypt", Quotas{}, 1000},
		{"DescribeKey", Quotas{}, 50},
		{"EnableKey", Quotas{}, 30},
		{"CreateKey", Quotas{}, 10},
		{"Encrypt", Quotas{Crypto: 7}, 7},
		{"DescribeKey", Quotas{Reads: 3}, 3},
		{"EnableKey", Quotas{Writes: 1}, 1},
		{"CreateKey", Quotas{CreateKey: 100}, 100},
	} {
		t.Run(fmt.Sprint(tt.operation, tt.perSecond), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vpc := newFake(0, nil)
				c := newClient(t, Config{Quotas: tt.quotas}, vpc)
				var wg sync.WaitGroup
				began := time.Now()
				for range 5 * tt.perSecond {
					wg.Go(func() {
						if err := invoke(t.Context(), c, tt.operation); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("5 seconds' worth took %v", took)
				}
				most := tt.perSecond + max(tt.perSecond/10, 1)
				for i, at := range vpc.times {
					if i >= most && at.Sub(vpc.times[i-most]) < time.Second {
						t.Fatalf("more than %d calls within a second, the quota is %d", most, tt.perSecond)
					}
				}
			})
		})
	}
}

// TestQuotasAreApart: a class that is exhausted does not slow another.
func TestQuotasAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{}, newFake(0, nil))
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { invoke(t.Context(), c, "DescribeKey") })
		}
		synctest.Wait()
		began := time.Now()
		if err := encrypt(t.Context(), c); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		wg.Wait()
	})
}

// TestQuotaIsShared: endpoints are ways to one account.
func TestQuotaIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vpc, public := newFake(-1, unreachable), newFake(0, nil)
		c := newClient(t, Config{Quotas: Quotas{Crypto: 10}}, vpc, public)
		began := time.Now()
		for range 50 {
			if err := encrypt(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		if total := vpc.count() + public.count(); time.Since(began) < time.Duration(total-2)*time.Second/10 {
			t.Errorf("%d attempts in %v", total, time.Since(began))
		}
	})
}

// TestFairness: a caller with a thousand calls in line costs another, with one, a
// single turn.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Quotas: Quotas{Crypto: 100}}, newFake(0, nil))
		greedy, stop := context.WithCancel(WithCaller(t.Context(), "uid 1000"))
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { encrypt(greedy, c) })
		}
		synctest.Wait()
		if q := c.Status().Quotas[0]; q.Waiting != 990 || q.Callers != 1 {
			t.Errorf("status %+v", q)
		}
		for range 3 {
			began := time.Now()
			if err := encrypt(WithCaller(t.Context(), "uid 1001"), c); err != nil {
				t.Error(err)
			}
			if took, most := time.Since(began), 2*time.Second/100; took > most {
				t.Errorf("a single call waited %v, its share of the line is %v", took, most)
			}
		}
		stop()
		wg.Wait()
		if q := c.Status().Quotas[0]; q.Waiting != 0 || q.Callers != 0 {
			t.Errorf("left behind: %+v", q)
		}
	})
}

// TestFairShares: who asks for ten times as much gets as much as the others.
func TestFairShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		c := newClient(t, Config{Quotas: Quotas{Crypto: 300}}, newFake(0, nil))
		served := map[string]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for caller, workers := range map[string]int{"a": 100, "b": 10, "c": 10} {
			for range workers {
				wg.Go(func() {
					for encrypt(WithCaller(ctx, caller), c) == nil {
						mu.Lock()
						served[caller]++
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
		for caller, n := range served {
			if n < 180 || n > 230 {
				t.Errorf("%s got %d of 600", caller, n)
			}
		}
	})
}

// TestNoTurnInTime: what cannot be served before its deadline is refused at once,
// and what can be is served.
func TestNoTurnInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vpc := newFake(0, nil)
		c := newClient(t, Config{Quotas: Quotas{Reads: 10}}, vpc)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		var mu sync.Mutex
		served := 0
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				err := invoke(ctx, c, "DescribeKey")
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					served++
					return
				}
				if time.Since(began) != 0 {
					t.Errorf("refused only after %v", time.Since(began))
				}
				e, ok := errors.AsType[*kmsapi.Error](err)
				cause, _ := errors.AsType[*ThrottledError](err)
				if !ok || cause == nil || cause.Limit != "10 key reads a second" || cause.Wait < time.Second ||
					!e.Throttled() || e.OutcomeUnknown() || e.Operation != "DescribeKey" {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if served != 10 || vpc.count() != 10 {
			t.Errorf("%d served with %d attempts, want those of seconds 0.0 to 0.9", served, vpc.count())
		}
	})
}

// TestOvertaken: newcomers can move a call that had a turn in time behind its
// deadline.
func TestOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Quotas: Quotas{Reads: 1}}, newFake(0, nil))
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { invoke(WithCaller(t.Context(), "many"), c, "DescribeKey") })
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 4500*time.Millisecond)
		defer cancel()
		var last error
		wg.Go(func() { last = invoke(WithCaller(ctx, "many"), c, "DescribeKey") }) // the fifth second: refused
		synctest.Wait()
		if cause, ok := errors.AsType[*ThrottledError](last); !ok || cause.Wait != 5*time.Second {
			t.Errorf("got %v", last)
		}
		patient, cancelPatient := context.WithTimeout(t.Context(), 5500*time.Millisecond)
		defer cancelPatient()
		wg.Go(func() { last = invoke(WithCaller(patient, "many"), c, "DescribeKey") })
		synctest.Wait()
		for i := range 4 {
			wg.Go(func() { invoke(WithCaller(t.Context(), fmt.Sprint(i)), c, "DescribeKey") })
		}
		wg.Wait()
		if cause, ok := errors.AsType[*ThrottledError](last); !ok || cause.Wait != 0 {
			t.Errorf("got %v, want a deadline that passed in line", last)
		}
	})
}

// TestCancelInLine: a caller that leaves gives its turn to the others.
func TestCancelInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Quotas: Quotas{Reads: 1}}, newFake(0, nil))
		if err := invoke(t.Context(), c, "DescribeKey"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := invoke(ctx, c, "DescribeKey"); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		wg.Go(func() {
			if err := invoke(t.Context(), c, "DescribeKey"); err != nil || time.Since(began) != time.Second {
				t.Errorf("%v after %v, want the next turn", err, time.Since(began))
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

// TestCancelAtTheTurn: a call that is given its turn, or its slot, at the moment at
// which it leaves gives it back.
func TestCancelAtTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQuota(Reads, 1), newSlots(1)
		if err := errors.Join(q.wait(t.Context()), s.acquire(t.Context())); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, wait := range []func(context.Context) error{q.wait, s.acquire} {
			wg.Go(func() {
				if err := wait(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		q.mu.Lock()
		s.mu.Lock()
		cancel() // what they wait for is decided here
		q.take()
		q.line.serve()
		s.pass()
		s.mu.Unlock()
		q.mu.Unlock()
		wg.Wait()
		began := time.Now()
		if err := q.wait(t.Context()); err != nil || time.Since(began) != time.Second {
			t.Errorf("%v after %v, want the turn that was given back", err, time.Since(began))
		}
		if n := s.inUse(); n != 0 {
			t.Errorf("%d slots are lost", n)
		}
	})
}

// TestSlots: calls under way are bounded, and a slow service does not undo the
// fairness.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now, most := 0, 0
		var mu sync.Mutex
		slow := &fake{do: func(context.Context, string) error {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		}}
		c := newClient(t, Config{MaxInFlight: 4}, slow)
		greedy, stop := context.WithCancel(WithCaller(t.Context(), "greedy"))
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() { encrypt(greedy, c) })
		}
		synctest.Wait()
		if n := c.Status().InFlight; n != 4 {
			t.Errorf("%d in flight", n)
		}
		began := time.Now()
		if err := encrypt(WithCaller(t.Context(), "modest"), c); err != nil || time.Since(began) != 2*time.Second {
			t.Errorf("%v after %v, want the next slot", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(WithCaller(t.Context(), "greedy"), 500*time.Millisecond)
		defer cancel()
		if err := encrypt(ctx, c); !isThrottled(err) {
			t.Errorf("got %v, want no slot in time", err)
		}
		stop()
		wg.Wait()
		if most != 4 || c.Status().InFlight != 0 {
			t.Errorf("%d at most, %d left", most, c.Status().InFlight)
		}
	})
}

func isThrottled(err error) bool {
	e, ok := errors.AsType[*kmsapi.Error](err)
	return ok && e.Throttled()
}

func TestNewRefuses(t *testing.T) {
	good := Endpoint{Name: "e", KMS: newFake(0, nil)}
	for name, config := range map[string]Config{
		"no endpoint":       {},
		"no client":         {Endpoints: []Endpoint{{Name: "e"}}},
		"no name":           {Endpoints: []Endpoint{good, {KMS: good.KMS}}},
		"a negative quota":  {Endpoints: []Endpoint{good}, Quotas: Quotas{Reads: -1}},
		"a huge quota":      {Endpoints: []Endpoint{good}, Quotas: Quotas{Crypto: maxPerSecond + 1}},
		"negative timeout":  {Endpoints: []Endpoint{good}, CallTimeout: -1},
		"negative attempt":  {Endpoints: []Endpoint{good}, AttemptTimeout: -1},
		"negative inflight": {Endpoints: []Endpoint{good}, MaxInFlight: -1},
	} {
		if _, err := New(config); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
