package reliable

import "time"

// Status is how a client is doing. It holds no parameter of any call.
type Status struct {
	Endpoints   []EndpointStatus // in order of preference
	Quotas      []QuotaStatus
	InFlight    int // attempts under way
	MaxInFlight int
	RetryBudget int // retries that would be allowed now
}

// EndpointStatus is how an endpoint is doing.
type EndpointStatus struct {
	Name  string
	State State
	// Since is when the endpoint was found to be failing, or to answer again; zero
	// when it has been well from the beginning.
	Since    time.Time
	Failures int       // one after the other
	RetryAt  time.Time // when an open circuit lets a call try; else zero
	// LastError is the latest failure of the endpoint, also after its recovery.
	LastError   string
	LastErrorAt time.Time
}

// QuotaStatus is how full a quota is.
type QuotaStatus struct {
	Class     Class
	PerSecond int
	Waiting   int // calls
	Callers   int // that they belong to
}

// Status returns a snapshot.
func (c *Client) Status() Status {
	s := Status{
		Endpoints: c.endpointStatus(), InFlight: c.slots.inUse(), MaxInFlight: c.slots.most, RetryBudget: c.budget.remaining(),
	}
	for _, class := range []Class{Crypto, Reads, Writes, CreateKey} {
		q := c.quotas[class]
		calls, callers := q.waiting()
		s.Quotas = append(s.Quotas, QuotaStatus{Class: class, PerSecond: q.perSecond, Waiting: calls, Callers: callers})
	}
	return s
}

func (c *Client) endpointStatus() []EndpointStatus {
	var all []EndpointStatus
	for _, e := range c.endpoints {
		all = append(all, e.circuit.status(e.Name))
	}
	return all
}

// Outcome is how a call or an attempt ended, as a label of a metric.
type Outcome string

// The outcomes.
const (
	OK          Outcome = "ok"
	Refused     Outcome = "refused"     // by the service, for good
	Throttled   Outcome = "throttled"   // by the service
	Broken      Outcome = "broken"      // no answer, or 5xx
	Abandoned   Outcome = "abandoned"   // the caller left
	Invalid     Outcome = "invalid"     // not sent: its parameters or the credentials
	Queued      Outcome = "queued"      // not sent: its turn would not come in time
	Unavailable Outcome = "unavailable" // not sent: no endpoint answers
)

// Attempt is one attempt of a call at one endpoint.
type Attempt struct {
	Operation string
	Endpoint  string
	Number    int // from 1; what is more is a retry
	Outcome   Outcome
	Took      time.Duration
}

// Call is a call as its caller saw it.
type Call struct {
	Operation string
	Outcome   Outcome
	Attempts  int
	Waited    time.Duration // for its turns
	Took      time.Duration // in all
}

// Observer is told what a client does, for metrics. Its methods are called
// concurrently and while locks are held: they return at once and do not call the
// client.
type Observer interface {
	Attempted(Attempt)
	Called(Call)
	CircuitChanged(endpoint string, state State)
}

type nobody struct{}

func (nobody) Attempted(Attempt)            {}
func (nobody) Called(Call)                  {}
func (nobody) CircuitChanged(string, State) {}
