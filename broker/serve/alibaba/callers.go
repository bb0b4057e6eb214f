package alibaba

import (
	"context"
	"time"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// OnSocket has the kernel say who calls, for a server whose connections came
// through [serve.Shares.Identify].
func OnSocket(shares *serve.Shares) Callers { return onSocket{shares} }

type onSocket struct{ shares *serve.Shares }

func (s onSocket) Begin(ctx context.Context) (*Visit, error) {
	caller, leave, err := s.shares.EnterPeer(ctx)
	return &Visit{caller, leave}, err
}

// Identify ignores signatures. A process is who it is, whatever it signs with.
func (onSocket) Identify(v *Visit, _ *wire.Request) (authz.Caller, error) { return v.caller, nil }

// Signed has an application's access key say who calls, for a server whose
// connections came through [serve.Shares.Strangers]. Requests that were stamped
// before Signed was called are refused, because another process may have served
// them; it waits for the next second, the unit of stamps, so that none of its own
// time is like that.
func Signed(ctx context.Context, core *broker.Broker, shares *serve.Shares, now func() time.Time) (Callers, error) {
	started := now()
	timer := time.NewTimer(started.Truncate(time.Second).Add(time.Second).Sub(started))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return signed{core, shares, wire.NewVerifier(wire.VerifierConfig{Secrets: secrets{core}, Now: now})}, nil
}

type signed struct {
	core     *broker.Broker
	shares   *serve.Shares
	verifier *wire.Verifier
}

// Begin takes a place among the calls of strangers, which this one is until its
// signature is verified: all of the request has to be read for that.
func (s signed) Begin(context.Context) (*Visit, error) {
	leave, err := s.shares.EnterStranger()
	return &Visit{leave: leave}, err
}

// Identify verifies the signature and gives the call its place among those of the
// application.
func (s signed) Identify(v *Visit, r *wire.Request) (authz.Caller, error) {
	if err := s.verifier.Verify(r); err != nil {
		return authz.Caller{}, notSigned(err)
	}
	key, _, ok := s.core.AppSecret(r.AccessKeyID)
	if !ok { // since then
		return authz.Caller{}, notSigned(wire.ErrUnknownAccessKey)
	}
	caller := authz.Caller{App: key.App}
	leave, err := s.shares.Enter(caller)
	if err != nil {
		return authz.Caller{}, err
	}
	v.leave()
	v.leave = leave
	return caller, nil
}

// secrets are those of the access keys that the broker issued.
type secrets struct{ core *broker.Broker }

// Secret implements [wire.Secrets]. It is asked for each request anew, so that a
// revocation holds at once.
func (s secrets) Secret(accessKeyID, securityToken string) (string, error) {
	_, secret, ok := s.core.AppSecret(accessKeyID)
	switch {
	case !ok:
		return "", wire.ErrUnknownAccessKey
	case securityToken != "":
		return "", wire.ErrTokenMismatch // no access key of the broker's has one
	}
	return secret, nil
}

// notSigned is a refusal of the protocol that says nothing of the caller.
func notSigned(err error) error {
	f := failure.New(failure.Denied, "SIGNATURE", "%v", err)
	f.Err = err
	return f
}
