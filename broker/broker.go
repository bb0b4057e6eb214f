// Package broker is the core: it authorizes and audits every call once, for all
// doors, and then does it with the KMS client or an HSM backend.
//
// A door (package serve and below) decodes, attaches the caller that the kernel
// reported, calls a method here, and encodes. It cannot forget the policy or
// the audit trail, because it never sees what lies behind them.
package broker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/datakey"
	"github.com/kmsbroker/kmsbroker/broker/evidence"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/broker/proxy"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi/reliable"
)

// Config is what a Broker is made of.
type Config struct {
	Version  string
	Keyring  *keyring.Keyring
	Audit    *audit.Log
	Backends *backend.Set
	Regions  importer.Endpoints
	Policy   *authz.Policy
	Now      func() time.Time
	Log      *slog.Logger
	Evidence *evidence.Signer
	// Reload reads the policy again that Policy was made of.
	Reload func() (Reloaded, error)
	// UnitsUnknown says why no caller's unit can be known; "" if they can.
	UnitsUnknown string
	// Envelope is how long data keys are kept, and for how much.
	Envelope datakey.Limits
	// Proxy is what clients of the PKCS#11 proxy take from each other; nil: there is no
	// proxy.
	Proxy *proxy.Limits
}

// Broker is the core. Its methods may be called concurrently.
type Broker struct {
	Config
	policy    atomic.Pointer[authz.Policy]
	reloading sync.Mutex
	importer  *importer.Importer
	startedAt time.Time
	renewals  struct{ done, failed atomic.Uint64 }
	dataKeys  *datakey.Cache
	proxy     *proxy.Proxy // nil if there is none
}

// New makes a Broker of its parts, which stay the caller's to close.
func New(config Config) *Broker {
	b := &Broker{Config: config, startedAt: config.Now().UTC(), dataKeys: datakey.New(config.Envelope, config.Now, unreachable)}
	b.policy.Store(config.Policy)
	if config.Proxy != nil {
		b.proxy = b.newProxy(*config.Proxy)
	}
	b.importer = importer.New(importer.Config{
		Keyring:   config.Keyring,
		Endpoints: config.Regions,
		Backend:   b.importBackend,
		Record:    b.record,
		Now:       config.Now,
	})
	return b
}

func (b *Broker) importBackend(name string) (importer.Backend, error) {
	found, err := b.Backends.Get(name)
	if err != nil {
		return importer.Backend{}, err
	}
	return importer.Backend{Token: found.Token(), AllowForeignEndpoint: found.Status().AllowForeignEndpoint}, nil
}

// Call is who calls, and through which door.
type Call struct {
	Caller authz.Caller
	Door   string
}

// caller is who calls, as the audit trail tells it.
func (c *Call) caller() *audit.Caller {
	if c.Caller.App != "" {
		return &audit.Caller{App: c.Caller.App}
	}
	return &audit.Caller{UID: c.Caller.UID, GID: c.Caller.GID, PID: c.Caller.PID, Unit: c.Caller.Unit.Name}
}

type callKey struct{}

// withCall lets record find the caller of whatever an administrator has done under
// ctx.
func withCall(ctx context.Context, call Call) context.Context {
	ctx = reliable.WithCaller(ctx, "administrator "+call.Caller.Identity().String())
	return context.WithValue(ctx, callKey{}, call)
}

// withApplication is withCall for the use of a key. KMS's quotas are shared between
// users and applications, not between their processes or the doors they come by.
func withApplication(ctx context.Context, call Call) context.Context {
	ctx = reliable.WithCaller(ctx, call.Caller.Identity().String())
	return context.WithValue(ctx, callKey{}, call)
}

// record writes an event to the audit trail, with the caller under whose call
// it happens. What cannot be recorded must not be done or answered.
func (b *Broker) record(ctx context.Context, event audit.Event) error {
	if call, ok := ctx.Value(callKey{}).(Call); ok && call.Door != "" {
		event.Door = call.Door
		event.Caller = call.caller()
	}
	event.Key = recordable(event.Key)
	return unrecorded(b.Audit.Append(ctx, event))
}

// recordable is a name of a key that may be on record and in traces. Who mixes up
// arguments may have sent a plaintext for one.
func recordable(key string) string {
	if key != "" && keyring.CheckName(key) != nil {
		return noName
	}
	return key
}

const (
	reasonAudit = "AUDIT"
	// noName is on record for a key's name that cannot be one.
	noName = "(no name)"
)

// unrecorded is the failure of a call for want of a record.
func unrecorded(err error) error {
	if err == nil {
		return nil
	}
	f := failure.New(failure.Unavailable, reasonAudit, "the audit trail cannot be written: %v", err).
		WithHint("free space in the state directory or repair the disk; nothing is done unrecorded")
	f.Err = err
	return f
}

// finish records how a call ended, and returns its error or the trail's.
func (b *Broker) finish(ctx context.Context, event audit.Event, err error) error {
	if f := failure.From(err); f != nil && f.Reason == reasonAudit {
		return err // counted already
	}
	if event.Outcome = audit.Done; err != nil {
		f := failure.From(err)
		if f.RequestID == "" && event.RequestID != "" {
			told := *f
			told.RequestID = event.RequestID // KMS was asked, and then something else refused
			f, err = &told, &told
		}
		event.Reason, event.Outcome = f.Reason, audit.Failed
		if f.Kind == failure.Denied {
			event.Outcome = audit.Denied
		}
		if event.RequestID == "" {
			event.RequestID = f.RequestID
		}
	}
	// The call is over even if the caller has gone; the record is not.
	auditErr := b.record(context.WithoutCancel(ctx), event)
	if auditErr != nil && (err == nil || event.Outcome == audit.Denied) {
		return auditErr
	}
	return err
}

// token finds the token of a backend.
func (b *Broker) token(name string) (hsm.Token, error) {
	found, err := b.Backends.Get(name)
	if err != nil {
		return nil, err
	}
	return found.Token(), nil
}
