package backend

import (
	"context"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// Device is the token of one plugin process, for PKCS#11 calls. Unlike [Backend.Token]
// it does not outlive the process: the sessions and the handles that a caller knows are
// gone with it.
type Device struct {
	cryptoki.Device
	// Gone is closed when the process has ended.
	Gone <-chan struct{}
	// CallTimeout bounds each call to the device.
	CallTimeout time.Duration
	// Hung has the process replaced, because a call did not end within CallTimeout.
	Hung func()
	// Suspect has the health of the device checked soon, because a call was answered as
	// if it were gone.
	Suspect func()
}

// Device returns the current process' token for PKCS#11 calls, the same one until the
// process is replaced. Like calls of Token it waits for a moment while that happens.
// NotPermitted: the plugin does not offer such calls.
func (b *Backend) Device(ctx context.Context) (*Device, error) {
	for {
		token, err := b.current(ctx)
		if err != nil {
			return nil, err
		}
		b.mu.Lock()
		process, device, changed, same := b.process, b.device, b.changed, b.token == token
		b.mu.Unlock()
		switch {
		case !same:
			continue
		case ended(process):
			if err := b.noticed(ctx, changed); err != nil {
				return nil, err
			}
			continue
		case device != nil:
			return device, nil
		}
		if err := b.openDevice(ctx, process); err != nil {
			return nil, err
		}
	}
}

// openDevice asks a process for its sessions and keeps them for all callers.
func (b *Backend) openDevice(ctx context.Context, process Process) error {
	ctx, cancel := context.WithTimeout(ctx, b.config.CallTimeout)
	defer cancel()
	sessions, err := process.Sessions(ctx)
	if err != nil {
		return err
	}
	token, limit := process.Token(), b.config.CallTimeout
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process == process && b.device == nil {
		b.device = &Device{
			Device: sessions, Gone: process.Exited(), CallTimeout: limit,
			Hung: func() { b.hung(token, limit) }, Suspect: b.suspectDevice,
		}
	}
	return nil
}

// suspectDevice has the watcher check the device, unless it is at it already.
func (b *Backend) suspectDevice() {
	select {
	case b.suspect <- nil:
	default:
	}
}

// noticed waits until the supervisor has seen that the process is gone.
func (b *Backend) noticed(ctx context.Context, changed <-chan struct{}) error {
	timeout := time.NewTimer(replaceWait)
	defer timeout.Stop()
	select {
	case <-changed:
		return nil
	case <-timeout.C:
		return b.unavailable(hsm.TokenGone, "lost its plugin process", nil)
	case <-ctx.Done():
		return b.unavailable(hsm.Timeout, "did not become ready in time", ctx.Err())
	}
}

func ended(process Process) bool {
	select {
	case <-process.Exited():
		return true
	default:
		return false
	}
}
