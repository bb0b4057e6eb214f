package backend

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Whether a process answers and whether its device does are two questions. A
// ping is answered by the plugin's own code, never by the vendor's library, so
// that only a process that is stopped or starved misses it. A health check goes
// through the library to the device and gets as long as any call: a Luna HA group
// may need more than 20 s to give up a member.
const (
	pingInterval   = 2 * time.Second
	pingTimeout    = 5 * time.Second
	healthInterval = 5 * time.Second
)

// watch returns why the process of the current token had to be ended, or that it
// has ended. With stale, what is known of the token comes from an earlier process.
func (b *Backend) watch(ctx context.Context, process Process, stale bool) error {
	watched, stop := context.WithCancel(ctx)
	unfit := make(chan error)
	var watchers sync.WaitGroup
	begin := func(watch func(context.Context, Process) error) {
		watchers.Go(func() {
			if err := watch(watched, process); err != nil {
				select {
				case unfit <- err:
				case <-watched.Done():
				}
			}
		})
	}
	begin(b.ping)
	begin(b.check)
	if stale {
		begin(b.refresh)
	}
	defer watchers.Wait()
	defer stop()

	select {
	case <-ctx.Done():
		b.set(Stopped, nil, nil)
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		process.Shutdown(stopCtx)
		return ctx.Err()
	case <-process.Exited():
		process.Kill() // releases what belongs to the dead process
		return hsm.Errorf(hsm.TokenGone, "the plugin process ended unexpectedly")
	case err := <-unfit:
		process.Kill()
		return err
	}
}

// ping asks the process whether it answers until it does not.
func (b *Backend) ping(ctx context.Context, process Process) error {
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		limited, cancel := context.WithTimeout(ctx, pingTimeout)
		err := process.Ping(limited)
		cancel()
		if err != nil {
			return err
		}
	}
}

// check asks for the health of the device, in intervals and when a call has met a
// token that is gone, until it is ill. A device that is busy is well, and a code
// that nobody understands has to come twice in a row: a new process costs a login.
func (b *Backend) check(ctx context.Context, process Process) error {
	strange := false
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	for {
		var asked chan struct{}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case asked = <-b.suspect:
		}
		limited, cancel := context.WithTimeout(ctx, b.config.CallTimeout)
		err := process.Token().Health(limited)
		cancel()
		switch {
		case err == nil, errors.Is(err, hsm.Busy):
			strange = false
		case errors.Is(err, hsm.Internal) && !strange:
			strange = true
		default:
			return err
		}
		if asked != nil {
			close(asked)
		}
	}
}

// refresh describes the token once more, while the process serves already.
func (b *Backend) refresh(ctx context.Context, process Process) error {
	limited, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return b.describe(limited, process.Token())
}
