// Package reliable makes one dependable KMS of endpoints that are not: it keeps
// to the account's quotas and shares them fairly between callers, repeats what
// failed when that is safe, and leaves an endpoint alone that does not answer.
//
// What it does for a call, in this order:
//
//   - the call waits for its turn under the quota of its class of operations, and
//     is refused at once when the turn would come after its deadline;
//   - it goes to the first endpoint whose circuit is not open;
//   - after a failure that may pass it is repeated, if the operation allows it
//     (see the table in operations.go), the retry budget is not spent, and there
//     is time. Throttling is waited out with full jitter; an endpoint that is
//     out of order is passed over if there is another.
//
// Nothing is ever sent twice in the hope that one copy is faster.
package reliable

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Defaults of Config. The quotas are those of "Performance data for KMS": of one
// account in one region, through the shared gateway.
const (
	DefaultCallTimeout    = 15 * time.Second
	DefaultAttemptTimeout = 5 * time.Second
	DefaultMaxInFlight    = kmsapi.DefaultMaxConns

	DefaultCryptoPerSecond    = 1000
	DefaultReadsPerSecond     = 50
	DefaultWritesPerSecond    = 30
	DefaultCreateKeyPerSecond = 10
)

// Endpoint is one way to the service.
type Endpoint struct {
	Name string // for people: its address
	KMS  kmsapi.KMS
}

// Quotas are calls per second; 0 means the default. A broker that shares its
// account with others is given less.
type Quotas struct {
	Crypto    int // Encrypt, Decrypt, GenerateDataKey and its variant
	Reads     int // everything that describes or lists, and GetParametersForImport
	Writes    int // everything that changes something, except CreateKey
	CreateKey int
}

// Config says what a Client is made of.
type Config struct {
	// Endpoints of one region and account, the preferred one first. Each makes
	// one attempt for a call, as [kmsapi.Client] does. Key material is sent to
	// whichever of them answers, so what must be proven of one
	// ([kmsapi.Client.Genuine]) must be proven of all.
	Endpoints []Endpoint
	Quotas    Quotas
	// CallTimeout bounds a call with all its waiting and attempts, and
	// AttemptTimeout each attempt; a context that ends earlier wins. 0 means the
	// default.
	CallTimeout    time.Duration
	AttemptTimeout time.Duration
	// MaxInFlight bounds the attempts under way at a time, so that a slow service
	// does not undo the fairness between callers. 0 means the default.
	MaxInFlight int
	// Observer may be nil.
	Observer Observer
}

// Client is a KMS over several endpoints. It has no goroutines of its own.
//
// Failures are *[kmsapi.Error], as of every KMS. One that the client refused
// itself has the stage [kmsapi.StageLocal] and as its cause a [*ThrottledError] or
// an [*UnavailableError].
type Client struct {
	endpoints      []*endpoint
	quotas         map[Class]*quota
	slots          *slots
	budget         *budget
	callTimeout    time.Duration
	attemptTimeout time.Duration
	observer       Observer
}

var _ kmsapi.KMS = (*Client)(nil)

// endpoint is an Endpoint and its circuit.
type endpoint struct {
	Endpoint
	circuit *circuit
}

// New makes a client. It contacts nothing.
func New(config Config) (*Client, error) {
	if len(config.Endpoints) == 0 {
		return nil, errors.New("a KMS client needs an endpoint")
	}
	quotas, err := newQuotas(config.Quotas)
	if err != nil {
		return nil, err
	}
	if config.CallTimeout < 0 || config.AttemptTimeout < 0 || config.MaxInFlight < 0 {
		return nil, errors.New("timeouts and the number of calls in flight must not be negative")
	}
	c := &Client{
		quotas:         quotas,
		slots:          newSlots(cmp.Or(config.MaxInFlight, DefaultMaxInFlight)),
		budget:         newBudget(),
		callTimeout:    cmp.Or(config.CallTimeout, DefaultCallTimeout),
		attemptTimeout: cmp.Or(config.AttemptTimeout, DefaultAttemptTimeout),
		observer:       config.Observer,
	}
	if c.observer == nil {
		c.observer = nobody{}
	}
	for i, e := range config.Endpoints {
		if e.KMS == nil || e.Name == "" {
			return nil, fmt.Errorf("KMS endpoint %d lacks a name or a client", i+1)
		}
		c.endpoints = append(c.endpoints, &endpoint{e, newCircuit(func(s State) { c.observer.CircuitChanged(e.Name, s) })})
	}
	return c, nil
}

func newQuotas(q Quotas) (map[Class]*quota, error) {
	quotas := map[Class]*quota{}
	for class, perSecond := range map[Class]int{
		Crypto:    cmp.Or(q.Crypto, DefaultCryptoPerSecond),
		Reads:     cmp.Or(q.Reads, DefaultReadsPerSecond),
		Writes:    cmp.Or(q.Writes, DefaultWritesPerSecond),
		CreateKey: cmp.Or(q.CreateKey, DefaultCreateKeyPerSecond),
	} {
		if perSecond < 1 || perSecond > maxPerSecond {
			return nil, fmt.Errorf("the quota of %s is %d a second: it must be 1 to %d", class, perSecond, maxPerSecond)
		}
		quotas[class] = newQuota(class, perSecond)
	}
	return quotas, nil
}
