package reliable

import (
	"fmt"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// State is the state of an endpoint's circuit.
type State string

// The states of a circuit.
const (
	Closed   State = "closed"    // calls go through
	Open     State = "open"      // calls are not tried
	HalfOpen State = "half-open" // one call is trying whether the endpoint is back
)

// States lists every state.
func States() []State { return []State{Closed, Open, HalfOpen} }

const (
	failuresToOpen = 5
	// firstPause is how long an open circuit stays so before a call may try; each
	// vain attempt doubles it up to longestPause.
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// circuit remembers whether an endpoint answers.
type circuit struct {
	changed func(State)

	mu       sync.Mutex
	state    State
	since    time.Time // the zero time: from the beginning
	failures int       // one after the other
	pause    time.Duration
	retryAt  time.Time // when not Closed, a call may try
	last     string    // the latest failure, kept after recovery
	lastAt   time.Time
}

func newCircuit(changed func(State)) *circuit {
	return &circuit{state: Closed, changed: changed}
}

// verdict is what an attempt says about its endpoint.
type verdict int

const (
	answered verdict = iota // also a refusal is an answer
	broken
	unclear // the caller left before anything could be told
)

// admits reports whether enter would let a call through.
func (c *circuit) admits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == Closed || c.due()
}

// due reports that it is time to try whether the endpoint is back. A probe that
// never leaves does not keep others from it for ever.
func (c *circuit) due() bool { return c.state != Closed && !time.Now().Before(c.retryAt) }

// enter lets a call through, or not. If it is a probe, the others stay out until
// its result is known. Each call that enters must leave.
func (c *circuit) enter() (probe, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == Closed:
		return false, true
	case c.due():
		c.retryAt = time.Now().Add(longestPause)
		c.become(HalfOpen)
		return true, true
	default:
		return false, false
	}
}

// leave tells how the call went.
func (c *circuit) leave(probe bool, v verdict, failure *kmsapi.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch v {
	case answered:
		c.failures = 0
		if c.state != Closed {
			c.become(Closed)
		}
	case broken:
		c.last, c.lastAt = describe(failure), time.Now()
		c.failures++
		if probe && c.state == HalfOpen {
			c.open(min(2*c.pause, longestPause))
		} else if c.state == Closed && c.failures >= failuresToOpen {
			c.open(firstPause)
		}
	case unclear:
		if probe && c.state == HalfOpen {
			c.open(0)
		}
	}
}

// open opens the circuit until a pause has passed; a pause of 0 leaves the next
// call to try what the last did not find out.
func (c *circuit) open(pause time.Duration) {
	if pause > 0 {
		c.pause = pause
	}
	c.retryAt = time.Now().Add(pause)
	c.become(Open)
}

// become changes the state. Since when an endpoint has been failing is not reset
// by a vain attempt.
func (c *circuit) become(s State) {
	if s == Closed || c.state == Closed {
		c.since = time.Now()
	}
	c.state = s
	c.changed(s)
}

// describe is a failure for everybody's eyes. The service's own sentence may name
// what only the caller of that call should know.
func describe(failure *kmsapi.Error) string {
	if failure.Code == "" {
		return failure.Error()
	}
	return fmt.Sprintf("%s: %s (HTTP %d, request %s)", failure.Operation, failure.Code, failure.Status, failure.RequestID)
}

func (c *circuit) status(name string) EndpointStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := EndpointStatus{Name: name, State: c.state, Since: c.since, Failures: c.failures, LastError: c.last, LastErrorAt: c.lastAt}
	if c.state == Open {
		s.RetryAt = c.retryAt
	}
	return s
}
