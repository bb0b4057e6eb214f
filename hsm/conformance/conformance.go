// Package conformance is the suite that every backend has to pass: on a token
// in memory, on a simulator, and unchanged on a customer's hardware.
//
// It asks only what package hsm promises, and it expects what PKCS#11, RFC 8017
// and the vendors' documents say, not what some device happens to do. It does
// not import testing, so that a program can run it against whatever is
// configured and keep its [Report] as evidence.
//
// The suite is safe on a partition in production. It makes keys under random
// IDs of its own, with a label that begins with [DefaultPrefix], removes them
// whatever happens, touches no other key, and never offers a wrong PIN unless
// [Config.Destructive] is set. What it cannot remove, the report names.
package conformance

import (
	"cmp"
	"context"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Version of the suite. It grows with every change of a check, so that two
// reports can be compared. The ID of a check is never given to another one.
const Version = "1.2"

// DefaultPrefix begins the label of every key that the suite makes.
const DefaultPrefix = "kmsbroker-conformance/"

// DefaultConcurrency is how many calls the checks of concurrency make at once.
const DefaultConcurrency = 50

// Config says what is checked. Only Open is required; the checks that
// need a hook which is nil are not run, and the report says so.
type Config struct {
	// Open opens a fresh token. For a plugin it starts another process. The
	// suite has one token open at a time and has closed it, or killed it, before
	// it asks for the next, so Open may clear away the process of the last one.
	// A run opens the token up to a dozen times, and never again after an Open
	// that failed for a reason that NeedsOperator.
	Open func(ctx context.Context) (hsm.Token, error)

	// Kill ends the process behind the open token at once, as SIGKILL does.
	Kill func() error

	// OpenWithPIN is Open with this PIN instead of the configured one. It is called
	// only when Destructive is set: once with a PIN of no bytes, which is not nil,
	// and once with a wrong one.
	OpenWithPIN func(ctx context.Context, pin []byte) (hsm.Token, error)

	// Plant makes an AES key under id whose CKA_EXTRACTABLE is false, by another
	// way than the backend. The suite destroys it.
	Plant func(ctx context.Context, id hsm.KeyID) error

	// Objects counts the objects of every class on the token, by another way than
	// the backend.
	Objects func(ctx context.Context) (int, error)

	// Leaks reports whether text contains the PIN.
	Leaks func(text string) bool

	// Asked is the token that the last Open wanted the PIN for.
	Asked func() hsm.TokenID

	// Exposed looks for the PIN in what others can see of the process behind the
	// open token: what it has logged, its arguments, its environment. It names the
	// places where it looked and those of them where the PIN is.
	Exposed func() (looked, found []string, err error)

	// Destructive admits checks that may count against the device: one wrong PIN.
	Destructive bool

	// Plugin and PluginSHA256, in hex, identify the backend in the report by its
	// executable.
	Plugin, PluginSHA256 string

	// RunBy names the programs that run the suite and their versions, such as
	// "kmsbrokerd v1.2".
	RunBy []string

	// Prefix of labels, DefaultPrefix if empty; at most 40 bytes of printable
	// ASCII.
	Prefix string

	// Concurrency is DefaultConcurrency if 0.
	Concurrency int

	// Progress is told each result as it comes, in the order of the report. May
	// be nil.
	Progress func(Result)

	// Now is time.Now if nil.
	Now func() time.Time
}

// Run runs every check and reports. It returns early when ctx ends; the checks
// that were not reached are then not run, and the suite's keys are removed all
// the same.
//
// A call that does not return by its deadline is given up and fails its check.
// Its goroutine stays behind, because nothing can end it from outside.
func Run(ctx context.Context, config Config) *Report {
	return newSuite(config, newWrappingKeys()).run(ctx)
}

func newSuite(config Config, keys *wrappingKeys) *suite {
	config.Prefix = cmp.Or(config.Prefix, DefaultPrefix)
	config.Concurrency = cmp.Or(config.Concurrency, DefaultConcurrency)
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Progress == nil {
		config.Progress = func(Result) {}
	}
	return &suite{
		config:   config,
		rsa:      keys,
		witness:  newWitness(config.Leaks),
		tracked:  map[hsm.KeyID]bool{},
		believed: true,
	}
}
