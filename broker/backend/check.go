package backend

import (
	"context"
	"encoding/hex"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
)

// CheckRequest says how a backend is checked.
type CheckRequest struct {
	Destructive bool     // admits one wrong PIN
	RunBy       []string // programs and their versions, for the report
	Progress    func(conformance.Result)
}

// Check runs the conformance suite against the backend's token, with the PIN that
// the backend itself has. The suite has plugin processes of its own, beside the
// one that serves; a backend that is blocked or has no PIN is not checked, because
// each of them would log in.
//
// Nobody but the plugin reaches the token here, so checks that take another
// program on it are not run, and the report says so.
func (b *Backend) Check(ctx context.Context, req CheckRequest) (*conformance.Report, error) {
	select {
	case b.checking <- struct{}{}:
		defer func() { <-b.checking }()
	default:
		return nil, failure.New(failure.WrongState, "CHECK_RUNNING", "backend %q is being checked already", b.config.Name)
	}
	if b.Status().State == WaitingForPIN {
		return nil, b.waiting()
	}
	if err := b.config.Logins.BlockedLogin(b.config.Name); err != nil {
		return nil, err
	}
	side := b.config.Side
	sum, err := expectedSum(side, side.path())
	if err != nil {
		return nil, err
	}
	// What the report names is what runs, in every process of this check.
	side.SHA256 = hex.EncodeToString(sum)
	pin, err := side.pin()
	if err != nil {
		return nil, err
	}
	defer clear(pin)
	c := newChecked(side, pin)
	defer c.kill()
	return conformance.Run(ctx, conformance.Config{
		Open: func(ctx context.Context) (hsm.Token, error) { return c.open(ctx, LaunchPlugin(c.config)) },
		OpenWithPIN: func(ctx context.Context, pin []byte) (hsm.Token, error) {
			return c.open(ctx, LaunchPluginWith(c.config, pin))
		},
		Kill:         func() error { c.kill(); return nil },
		Leaks:        c.leaks,
		Asked:        func() hsm.TokenID { return c.asked },
		Exposed:      c.exposed,
		Destructive:  req.Destructive,
		Plugin:       side.path(),
		PluginSHA256: side.SHA256,
		RunBy:        req.RunBy,
		Progress:     req.Progress,
	}), nil
}

// MakeToken makes a new token, for development. It waits for a check to end,
// because both use the same place for their sockets.
func (b *Backend) MakeToken(ctx context.Context, label string, soPIN, pin []byte) (serial string, err error) {
	select {
	case b.checking <- struct{}{}:
		defer func() { <-b.checking }()
	case <-ctx.Done():
		return "", failure.From(ctx.Err())
	}
	return InitToken(ctx, b.config.Side, label, soPIN, pin)
}
