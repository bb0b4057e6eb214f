// Package backend keeps the configured HSM backends running: it starts their
// plugin processes, logs in, watches them, replaces those that die or stop
// answering, and gives the core one [hsm.Token] per backend that outlives its
// processes.
package backend

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// State is how a backend is.
type State string

// The states. A Blocked backend is not tried again before RetryLogin, not even
// by another daemon: its PIN was refused, and one more attempt could lock the
// HSM.
const (
	WaitingForPIN State = "waiting-for-pin" // that an administrator has to enter
	Starting      State = "starting"
	Ready         State = "ready"
	Restarting    State = "restarting"
	Blocked       State = "blocked"
	Stopped       State = "stopped" // with the daemon
)

// States lists every state.
func States() []State {
	return []State{WaitingForPIN, Starting, Ready, Restarting, Blocked, Stopped}
}

// Process is a plugin process with an open token. It is the seam to
// hsm/plugin, so that tests can supervise something cheaper.
type Process interface {
	Token() hsm.Token
	// Sessions gives the token for PKCS#11 calls; NotPermitted when the plugin
	// does not offer it. It may be called again.
	Sessions(ctx context.Context) (cryptoki.Device, error)
	PID() int
	// Ping proves that the process itself answers, whatever its library and the
	// device are doing.
	Ping(ctx context.Context) error
	// Exited is closed when the process is gone.
	Exited() <-chan struct{}
	// Shutdown logs out and ends the process; it kills when ctx ends.
	Shutdown(ctx context.Context)
	Kill()
}

// Launch starts a process and opens its token, which includes the one login
// attempt that the process will ever make.
type Launch func(ctx context.Context) (Process, error)

// Config describes one backend.
type Config struct {
	Name                 string
	Plugin               string // for display
	AllowForeignEndpoint bool
	Launch               Launch
	// Side starts the plugin processes beside the one that serves: those of the
	// conformance suite, and of making a token.
	Side PluginConfig
	// Prompted holds the PIN that an administrator enters; nil when Launch gets it
	// from somewhere else.
	Prompted *PromptedPIN
	// Logins remembers refused logins across restarts.
	Logins *keyring.Keyring
	// CallTimeout bounds each call to the device. A process that does not
	// answer within it is replaced.
	CallTimeout time.Duration
	Log         *slog.Logger
	// Changed is told of every change of state; it must not block.
	Changed func(Status)
}

// Intervals of supervision. A device that is away is looked for about once a
// second, because people wait for it; a configuration that is wrong is tried
// rarely, because only people can mend it. Backoffs count from one start to the
// next, so that an attempt that took long in vain is not followed by a pause too.
const (
	startTimeout   = 60 * time.Second
	stopTimeout    = 5 * time.Second
	minBackoff     = 50 * time.Millisecond
	maxBackoffGone = time.Second
	maxBackoff     = 30 * time.Second
	steady         = 10 * time.Second // a process that lived this long resets the backoff
)

// Status is a picture of a backend at one moment.
type Status struct {
	Name                 string
	Plugin               string
	State                State
	Err                  error // why it is not ready
	Restarts             int
	PID                  int
	AllowForeignEndpoint bool
	Info                 *hsm.Info // nil until it was ready once
}

// Backend is one supervised HSM token.
type Backend struct {
	config  Config
	suspect chan chan struct{} // a call met TokenGone: check now, close when healthy, unless nil
	retry   chan struct{}      // an administrator allows another login
	calls   sync.WaitGroup     // on the device, also those whose callers have left

	checking chan struct{} // full while Check or MakeToken is at it

	mu      sync.Mutex
	status  Status
	token   hsm.Token // nil unless Ready
	process Process   // of token, or the last that was
	device  *Device   // of process, nil until somebody asked for it
	// down is set while the last attempt to start failed: callers are told so
	// at once instead of waiting for the next one.
	down bool
	// lost is since when there has been no token that there was.
	lost    time.Time
	changed chan struct{} // closed at the next change
}

// New makes a backend; Run brings it to life.
func New(config Config) *Backend {
	b := &Backend{
		config:   config,
		suspect:  make(chan chan struct{}),
		retry:    make(chan struct{}, 1),
		checking: make(chan struct{}, 1),
		status: Status{
			Name: config.Name, Plugin: config.Plugin,
			AllowForeignEndpoint: config.AllowForeignEndpoint,
		},
		changed: make(chan struct{}),
	}
	b.status.State = b.first()
	return b
}

// Status returns how the backend is now.
func (b *Backend) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

func (b *Backend) awaitStart(ctx context.Context) {
	for {
		b.mu.Lock()
		state, changed := b.status.State, b.changed
		b.mu.Unlock()
		if state != Starting {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Run supervises until ctx ends, then shuts the process down and waits for the
// calls on the device. No call may be begun after that.
func (b *Backend) Run(ctx context.Context) {
	defer b.calls.Wait()
	backoff := minBackoff
	for ctx.Err() == nil {
		started := time.Now()
		err := b.awaitPIN(ctx)
		if err == nil {
			err = b.serve(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if blocked := b.blockedBy(err); blocked != nil {
			b.block(ctx, blocked)
			backoff = minBackoff
			continue
		}
		if time.Since(started) > steady {
			backoff = minBackoff
		}
		b.set(Restarting, nil, err)
		next := started.Add(backoff/2 + rand.N(backoff/2)) //nolint:gosec // jitter needs no secrecy
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(next)):
		}
		backoff = min(2*backoff, longest(err))
	}
}

// longest is how long to pause at most after err. How a device that is away
// answers is not documented, so a code that nobody knows counts as that.
func longest(err error) time.Duration {
	switch hsm.ReasonOf(err) {
	case hsm.TokenGone, hsm.Timeout, hsm.Busy, hsm.NotFound, hsm.Internal:
		return maxBackoffGone
	default:
		return maxBackoff
	}
}

// blockedBy returns why no login may be attempted before a person has changed
// something, nil if one may. A PIN that was entered and is of no use is forgotten:
// what is entered next must not be preceded by it.
func (b *Backend) blockedBy(err error) error {
	reason := hsm.ReasonOf(err)
	if reason.NeedsOperator() && reason != hsm.LoginUnclear && b.config.Prompted != nil {
		b.config.Prompted.wipe()
	}
	if reason.NeedsOperator() {
		return err
	}
	return b.config.Logins.BlockedLogin(b.config.Name)
}

// block waits until an administrator allows another login.
func (b *Backend) block(ctx context.Context, err error) {
	b.config.Log.Error("backend blocked: the login is not tried again", "backend", b.config.Name, "error", err)
	b.set(Blocked, nil, err)
	select {
	case <-ctx.Done():
	case <-b.retry:
		b.config.Log.Info("another login is allowed", "backend", b.config.Name)
	}
}

// serve runs one process from its start to its end and says why it ended. Only
// the first one has to be described before it serves: a device takes a second to
// be asked what it can do, which after a loss everybody would wait for.
func (b *Backend) serve(ctx context.Context) error {
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	process, err := b.config.Launch(startCtx)
	if err != nil {
		b.failed()
		return err
	}
	known := b.Status().Info != nil
	if !known {
		if err := b.describe(startCtx, process.Token()); err != nil {
			process.Kill()
			b.failed()
			return err
		}
	}
	b.mu.Lock()
	b.status.PID = process.PID()
	b.process, b.device = process, nil
	b.mu.Unlock()
	select {
	case <-b.retry: // not needed any more
	default:
	}
	b.set(Ready, process.Token(), nil)
	b.config.Log.Info("backend ready", "backend", b.config.Name, "pid", process.PID())
	return b.watch(ctx, process, known)
}

// describe asks the token what it is and can do.
func (b *Backend) describe(ctx context.Context, token hsm.Token) error {
	info, err := token.Describe(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.status.Info = info
	b.mu.Unlock()
	b.config.Log.Info("backend described", "backend", b.config.Name, "model", info.Model,
		"serial", info.Serial, "label", info.Label)
	return nil
}

// failed opens the circuit: until a start succeeds, nobody waits for one.
func (b *Backend) failed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = true
}

// set publishes a change of state and wakes everybody who waits for one. An
// attempt that failed like the one before is no news.
func (b *Backend) set(state State, token hsm.Token, err error) {
	b.mu.Lock()
	old := b.status
	if state == Restarting && old.State == Ready {
		b.status.Restarts++
		b.lost = time.Now()
	}
	if state != Ready {
		b.status.PID = 0
	}
	if state == Ready || state == Starting {
		b.down = false
	}
	b.status.State, b.status.Err, b.token = state, err, token
	status := b.status
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
	if old.State == state && hsm.ReasonOf(old.Err) == hsm.ReasonOf(err) && old.Err != nil {
		return
	}
	if state == Restarting {
		b.config.Log.Warn("backend down, restarting it", "backend", b.config.Name, "error", err)
	}
	b.config.Changed(status)
}
