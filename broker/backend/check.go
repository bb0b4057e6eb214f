package backend

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
)

// Check runs the conformance suite against the backend's token. The suite has
// plugin processes of its own, beside the one that serves; a blocked backend is
// not checked, because each of them would log in.
func (b *Backend) Check(ctx context.Context, destructive bool, progress func(conformance.Result)) (*conformance.Report, error) {
	if !b.checking.TryLock() {
		return nil, failure.New(failure.WrongState, "CHECK_RUNNING", "backend %q is being checked already", b.config.Name)
	}
	defer b.checking.Unlock()
	if err := b.config.Logins.BlockedLogin(b.config.Name); err != nil {
		return nil, err
	}
	c := &checked{backend: b}
	defer c.kill()
	return conformance.Run(ctx, conformance.Config{
		Open: func(ctx context.Context) (hsm.Token, error) { return c.open(ctx, nil) },
		OpenWithPIN: func(ctx context.Context, pin []byte) (hsm.Token, error) {
			return c.open(ctx, append([]byte{}, pin...)) // nil would mean the configured PIN
		},
		Kill:        func() error { c.kill(); return nil },
		Destructive: destructive,
		Plugin:      b.config.Plugin,
		Progress:    progress,
	}), nil
}

// MakeToken makes a new token, for development. It waits for a check to end,
// because both use the same place for their sockets.
func (b *Backend) MakeToken(ctx context.Context, label string, soPIN, pin []byte) (serial string, err error) {
	b.checking.Lock()
	defer b.checking.Unlock()
	return b.config.InitToken(ctx, label, soPIN, pin)
}

// checked is the one process that the suite has at a time.
type checked struct {
	backend *Backend
	process Process
}

func (c *checked) open(ctx context.Context, pin []byte) (hsm.Token, error) {
	c.kill()
	process, err := c.backend.config.LaunchCheck(pin)(ctx)
	if err != nil {
		return nil, err
	}
	c.process = process
	return process.Token(), nil
}

func (c *checked) kill() {
	if c.process != nil {
		c.process.Kill()
		c.process = nil
	}
}
