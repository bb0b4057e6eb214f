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

	"github.com/kmsbroker/kmsbroker/hsm"
)

// State is how a backend is.
type State string

// The states. A Blocked backend is not tried again before the daemon is
// restarted: its PIN was refused, and another attempt could lock the HSM.
const (
	Starting   State = "starting"
	Ready      State = "ready"
	Restarting State = "restarting"
	Blocked    State = "blocked"
)

// Process is a plugin process with an open token. It is the seam to
// hsm/plugin, so that tests can supervise something cheaper.
type Process interface {
	Token() hsm.Token
	PID() int
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
	Log                  *slog.Logger
	// Changed is told of every change of state; it must not block.
	Changed func(Status)
}

// Intervals of supervision. Health allows for a Luna HA failover, which can
// hold a call for more than 20 seconds.
const (
	startTimeout   = 60 * time.Second
	healthInterval = 5 * time.Second
	healthTimeout  = 30 * time.Second
	stopTimeout    = 5 * time.Second
	minBackoff     = 50 * time.Millisecond
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
	suspect chan struct{} // a call met TokenGone: check now

	mu      sync.Mutex
	status  Status
	token   hsm.Token     // nil unless Ready
	changed chan struct{} // closed at the next change
}

// New makes a backend; Run brings it to life.
func New(config Config) *Backend {
	return &Backend{
		config:  config,
		suspect: make(chan struct{}, 1),
		status: Status{
			Name: config.Name, Plugin: config.Plugin, State: Starting,
			AllowForeignEndpoint: config.AllowForeignEndpoint,
		},
		changed: make(chan struct{}),
	}
}

// Status returns how the backend is now.
func (b *Backend) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// Run supervises until ctx ends, then shuts the process down.
func (b *Backend) Run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		started := time.Now()
		err := b.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if hsm.ReasonOf(err).NeedsOperator() {
			b.config.Log.Error("backend blocked: the login is not tried again", "backend", b.config.Name, "error", err)
			b.set(Blocked, nil, err)
			<-ctx.Done()
			return
		}
		if time.Since(started) > steady {
			backoff = minBackoff
		}
		pause := backoff/2 + rand.N(backoff/2) //nolint:gosec // jitter needs no secrecy
		b.config.Log.Warn("backend down, restarting it", "backend", b.config.Name, "error", err, "pause", pause)
		b.set(Restarting, nil, err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// serve runs one process from its start to its end and says why it ended.
func (b *Backend) serve(ctx context.Context) error {
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	process, err := b.config.Launch(startCtx)
	if err != nil {
		return err
	}
	info, err := process.Token().Describe(startCtx)
	if err != nil {
		process.Kill()
		return err
	}
	b.mu.Lock()
	b.status.Info, b.status.PID = info, process.PID()
	b.mu.Unlock()
	b.set(Ready, process.Token(), nil)
	b.config.Log.Info("backend ready", "backend", b.config.Name, "model", info.Model,
		"serial", info.Serial, "label", info.Label, "pid", process.PID())
	return b.watch(ctx, process)
}

func (b *Backend) watch(ctx context.Context, process Process) error {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			b.set(Restarting, nil, hsm.Errorf(hsm.TokenGone, "kmsbrokerd is stopping"))
			stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			process.Shutdown(stopCtx)
			return ctx.Err()
		case <-process.Exited():
			process.Kill() // releases what belongs to the dead process
			return hsm.Errorf(hsm.TokenGone, "the plugin process ended unexpectedly")
		case <-ticker.C:
		case <-b.suspect:
		}
		if err := health(ctx, process.Token()); err != nil && ctx.Err() == nil {
			process.Kill()
			return err
		}
	}
}

func health(ctx context.Context, token hsm.Token) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	return token.Health(ctx)
}

// set publishes a change of state and wakes everybody who waits for one.
func (b *Backend) set(state State, token hsm.Token, err error) {
	b.mu.Lock()
	if state == Restarting && b.status.State == Ready {
		b.status.Restarts++
	}
	if state != Ready {
		b.status.PID = 0
	}
	b.status.State, b.status.Err, b.token = state, err, token
	status := b.status
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
	b.config.Changed(status)
}
