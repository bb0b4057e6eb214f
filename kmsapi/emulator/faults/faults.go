// Package faults makes an emulated service misbehave on purpose, the way the real
// one does now and then: slowly, throttled, unavailable, behind a proxy that
// answers for it, or gone in the middle of an answer. What goes wrong is decided
// by rules and a seed, so that a run that failed can be run again.
package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
)

// Kind is what goes wrong.
type Kind string

// The kinds. Latency and Skew let the request be served; all others answer in
// its place, before its effect or, with [Rule.After], after it.
const (
	Latency     Kind = "latency"
	Throttling  Kind = "throttling"   // 429 Rejected.Throttling, as KMS says it
	FlowControl Kind = "flow-control" // 400 Throttling.User, as the gateway says it
	Internal    Kind = "internal"     // 500 InternalFailure
	Unavailable Kind = "unavailable"  // 503 ServiceUnavailableTemporary
	HTML        Kind = "html"         // 502 and a page in HTML, as a proxy makes
	Reset       Kind = "reset"        // the connection is reset without an answer
	Skew        Kind = "skew"         // the server's clock is wrong
)

var kinds = []Kind{Latency, Throttling, FlowControl, Internal, Unavailable, HTML, Reset, Skew}

// Rule is one thing that goes wrong, and when. The first rule that fires decides
// about a request.
type Rule struct {
	Kind Kind `json:"kind"`
	// Action and Region say to whom it happens, with * and ? as in a policy;
	// empty is everything. Region is empty for RAM and STS.
	Action string `json:"action,omitempty"`
	Region string `json:"region,omitempty"`
	// Probability, from 0 to 1, is how often; absent is always.
	Probability *float64 `json:"probability,omitempty"`
	// Count is how many times at most; 0 is without end.
	Count int `json:"count,omitempty"`
	// After lets the request have its effect before it goes wrong.
	After bool `json:"after,omitempty"`
	// Delay goes before everything else, with any kind.
	Delay Duration `json:"delay,omitempty"`
	// Skew is how far the server's clock is ahead; negative is behind.
	Skew Duration `json:"skew,omitempty"`
}

// Duration is a time.Duration that JSON spells as Go does, "250ms".
type Duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// Plan is all that goes wrong.
type Plan struct {
	// Seed decides, with Probability, which of the matching requests are hit:
	// for each rule, the same ones in every run.
	Seed  uint64 `json:"seed"`
	Rules []Rule `json:"rules"`
}

func (p Plan) check() error {
	for i, r := range p.Rules {
		var err error
		switch {
		case !slices.Contains(kinds, r.Kind):
			err = fmt.Errorf("kind %q is none of %v", r.Kind, kinds)
		case r.Probability != nil && (*r.Probability < 0 || *r.Probability > 1):
			err = errors.New("probability is not between 0 and 1")
		case r.Count < 0 || r.Delay < 0:
			err = errors.New("count and delay cannot be negative")
		case (r.Kind == Skew) != (r.Skew != 0):
			err = errors.New("skew goes with the kind skew")
		case r.Kind == Latency && r.Delay == 0:
			err = errors.New("latency needs a delay")
		case r.After && (r.Kind == Latency || r.Kind == Skew):
			err = errors.New("latency and skew come before the effect")
		}
		if err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return nil
}

// Injector picks faults. The zero Injector has none. It may be used concurrently.
type Injector struct {
	mu    sync.Mutex
	plan  Plan
	rules []rule
}

type rule struct {
	Rule
	random *rand.Rand
	hits   int
}

// Set replaces the plan, and starts it from its beginning. An error leaves the
// plan as it was.
func (in *Injector) Set(p Plan) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	rules := make([]rule, len(p.Rules))
	for i, r := range p.Rules {
		rules[i] = rule{Rule: r, random: rand.New(rand.NewPCG(p.Seed, uint64(i)))} //nolint:gosec // repeatable on purpose
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.plan, in.rules = p, rules
	return nil
}

// Hits counts how often each rule of the plan fired.
func (in *Injector) Hits() []int {
	in.mu.Lock()
	defer in.mu.Unlock()
	hits := make([]int, len(in.rules))
	for i, r := range in.rules {
		hits[i] = r.hits
	}
	return hits
}

// Pick says what goes wrong with a request, if anything does.
func (in *Injector) Pick(action, region string) (Rule, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range in.rules {
		r := &in.rules[i]
		if !r.matches(action, region) || r.Count > 0 && r.hits >= r.Count {
			continue
		}
		if r.Probability != nil && r.random.Float64() >= *r.Probability {
			continue
		}
		r.hits++
		return r.Rule, true
	}
	return Rule{}, false
}

func (r Rule) matches(action, region string) bool {
	return (r.Action == "" || policy.Match(r.Action, action)) && (r.Region == "" || policy.Match(r.Region, region))
}
