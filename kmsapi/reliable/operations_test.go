package reliable

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// TestEveryOperationHasARow: a new method of kmsapi.KMS needs a decision.
func TestEveryOperationHasARow(t *testing.T) {
	for _, name := range methods() {
		if _, ok := operations[name]; !ok {
			t.Errorf("%s has no row", name)
		}
	}
	if len(operations) != len(methods()) {
		t.Error("there are rows without a method")
	}
}

// TestEveryOperationCallsItself: once, at the preferred endpoint, under its own
// row.
func TestEveryOperationCallsItself(t *testing.T) {
	for _, name := range methods() {
		synctest.Test(t, func(t *testing.T) {
			seen := &recorder{}
			vpc, public := newFake(0, nil), newFake(0, nil)
			c := newClient(t, Config{Observer: seen}, vpc, public)
			if err := invoke(t.Context(), c, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !slices.Equal(vpc.calls, []string{name}) || public.count() != 0 {
				t.Errorf("%s: calls %v and %v", name, vpc.calls, public.calls)
			}
			if want := []string{name + " vpc 1 ok", name + " ok 1"}; !slices.Equal(seen.events, want) {
				t.Errorf("observed %q, want %q", seen.events, want)
			}
		})
	}
}

// notTwice are the operations whose second execution would do harm or be refused.
var notTwice = []string{"CreateKey", "CreateAlias", "DeleteAlias", "ScheduleKeyDeletion", "CancelKeyDeletion"}

// TestRepeats fails every operation once in every way.
func TestRepeats(t *testing.T) {
	const never, ifSafe, always = 0, 1, 2
	for _, tt := range []struct {
		name    string
		failure error
		repeats int
	}{
		{"throttled by KMS", throttled, always},
		{"throttled by the gateway", gatewayThrottle, always},
		{"no connection", unreachable, always},
		{"reset", reset, ifSafe},
		{"answer cut short", cutShort, ifSafe},
		{"server error", serverError, ifSafe},
		{"HTML 502", badGateway, ifSafe},
		{"HTML 429", &kmsapi.Error{Status: 429, Stage: kmsapi.StageAnswered, Cause: errors.New("HTML")}, ifSafe},
		{"refused", refused, never},
		{"not in the documented form", malformed, never},
		{"redirected", redirected, never},
		{"refused by the endpoint's client", badContext, never},
	} {
		for _, name := range methods() {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					vpc := newFake(1, tt.failure)
					c := newClient(t, Config{}, vpc)
					err := invoke(t.Context(), c, name)
					again := tt.repeats == always || tt.repeats == ifSafe && !slices.Contains(notTwice, name)
					if again && (err != nil || vpc.count() != 2) {
						t.Errorf("%v after %d attempts, want a second one", err, vpc.count())
					}
					if !again && (!errors.Is(err, tt.failure) || vpc.count() != 1) {
						t.Errorf("%v after %d attempts, want the failure after one", err, vpc.count())
					}
				})
			})
		}
	}
}

// TestDoubtsAreKept: a definite failure after a lost answer says nothing about
// what was lost.
func TestDoubtsAreKept(t *testing.T) {
	for name, doubtful := range map[string]bool{"ImportKeyMaterial": true, "Encrypt": false} {
		synctest.Test(t, func(t *testing.T) {
			vpc := newFake(1, reset)
			first := vpc.do
			vpc.do = func(ctx context.Context, operation string) error {
				if err := first(ctx, operation); err != nil {
					return err
				}
				return refused
			}
			err := invoke(t.Context(), newClient(t, Config{}, vpc), name)
			e, ok := errors.AsType[*kmsapi.Error](err)
			if !ok || e.Code != kmsapi.CodeDisabled || e.OutcomeUnknown() != doubtful {
				t.Errorf("%s: %v, outcome unknown %v", name, err, e.OutcomeUnknown())
			}
			if refused.EarlierUnknown {
				t.Fatal("the endpoint's own error was changed")
			}
		})
	}
}

// recorder is an Observer that writes everything down.
type recorder struct{ events []string }

func (r *recorder) Attempted(a Attempt) {
	r.events = append(r.events, fmt.Sprint(a.Operation, " ", a.Endpoint, " ", a.Number, " ", a.Outcome))
}

func (r *recorder) Called(c Call) {
	r.events = append(r.events, fmt.Sprint(c.Operation, " ", c.Outcome, " ", c.Attempts))
}

func (r *recorder) CircuitChanged(endpoint string, s State) {
	r.events = append(r.events, fmt.Sprint(endpoint, " ", s))
}
