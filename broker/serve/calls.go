package serve

import (
	"context"
	"log/slog"
	"path"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/internal/tracing"
)

// Observe is told of a call that is over: the operation is the name of its
// method, and err is what the core said.
type Observe func(operation string, err error, took time.Duration)

// Calls is what surrounds every call at a door, whatever the door speaks.
type Calls struct {
	log      *slog.Logger
	failures *failureLog
	observe  Observe
	tracer   trace.Tracer // nil: nothing is traced
}

// NewCalls makes the surroundings of a door's calls.
func NewCalls(log *slog.Logger, observe Observe, tracer trace.Tracer) *Calls {
	return &Calls{log, newFailureLog(log), observe, tracer}
}

// Serve makes a gRPC call of a method, or an item of a batch, and returns what goes
// over the socket: a panic ends that one alone.
func (c *Calls) Serve(ctx context.Context, method string, call func(context.Context) error) error {
	caller, _ := CallerOf(ctx) // a call without one fails by itself
	return Status(c.Do(ctx, caller, method, call))
}

// Do makes a call and returns what the core says. The last part of the method's path is its operation, and both
// are of few values, whatever callers do.
func (c *Calls) Do(ctx context.Context, caller authz.Caller, method string, call func(context.Context) error) error {
	began := time.Now()
	if c.tracer != nil {
		var span trace.Span
		ctx, span = c.tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindServer))
		untraced := call
		call = func(ctx context.Context) (err error) {
			defer func() { tracing.End(span, err) }()
			return untraced(ctx)
		}
	}
	err := c.survive(method, func() error { return call(ctx) })
	c.observe(path.Base(method), err, time.Since(began))
	c.failures.add(ctx, caller, method, err)
	return err
}

// survive turns a panic into an error of that one call. The panic's value may
// hold anything and is not logged.
func (c *Calls) survive(method string, call func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			c.log.Error("panic in a call", "method", method, "stack", string(debug.Stack()))
			err = failure.New(failure.Internal, "PANIC", "an internal error ended the call; the log of kmsbrokerd has the details")
		}
	}()
	return call()
}
