package reliable

import (
	"context"
	"errors"
	"time"

	"github.com/kmsbroker/kmsbroker/internal/tracing"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// patience is how long an endpoint may keep a caller waiting that then gives up,
// before that counts as a failure of the endpoint.
const patience = 2 * time.Second

// callWith is call for operations with one argument.
func callWith[Arg, T any](ctx context.Context, c *Client, name string,
	operation func(kmsapi.KMS, context.Context, Arg) (T, error), arg Arg,
) (T, error) {
	return call(ctx, c, name, func(ctx context.Context, kms kmsapi.KMS) (T, error) {
		return operation(kms, ctx, arg)
	})
}

// call makes as many attempts as it takes and is allowed.
func call[T any](ctx context.Context, c *Client, name string, attempt func(context.Context, kmsapi.KMS) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, c.callTimeout)
	defer cancel()
	p := &progress{client: c, name: name, op: operations[name], began: time.Now(), avoid: map[*endpoint]bool{}}
	c.budget.fill()
	for {
		var result T
		failure := p.try(ctx, func(ctx context.Context, kms kmsapi.KMS) (err error) {
			result, err = attempt(ctx, kms)
			return err
		})
		if failure == nil {
			p.finish(OK)
			return result, nil
		}
		if !p.again(ctx, failure) {
			failure = p.final(failure)
			p.finish(outcomeOf(failure))
			var none T
			return none, failure
		}
	}
}

// progress is how far a call has come.
type progress struct {
	client   *Client
	name     string
	op       operation
	began    time.Time
	waited   time.Duration
	attempts int
	last     *kmsapi.Error      // of the attempts
	unknown  bool               // an attempt may have been carried out
	avoid    map[*endpoint]bool // they broke during this call
}

// try makes one attempt when it is the call's turn.
func (p *progress) try(ctx context.Context, attempt func(context.Context, kmsapi.KMS) error) *kmsapi.Error {
	c := p.client
	// Before the turn: with all circuits open the answer is known.
	if !c.available() {
		return p.local(&UnavailableError{Endpoints: c.endpointStatus()})
	}
	if err := p.await(ctx); err != nil {
		return p.local(err)
	}
	defer c.slots.release()
	e, probe := p.choose()
	if e == nil {
		return p.local(&UnavailableError{Endpoints: c.endpointStatus()})
	}
	p.attempts++
	began := time.Now()
	traced, end := tracing.Start(ctx, "KMS "+p.name, tracing.Endpoint, e.Name)
	failure := p.attempt(traced, e, attempt)
	end(errorOf(failure))
	took := time.Since(began)

	v, outcome := verdictOn(failure), outcomeOf(failure)
	if v == broken && ctx.Err() != nil && took < patience {
		v, outcome = unclear, Abandoned
	}
	e.circuit.leave(probe, v, failure)
	p.avoid[e] = v == broken
	p.last = failure
	c.observer.Attempted(Attempt{Operation: p.name, Endpoint: e.Name, Number: p.attempts, Outcome: outcome, Took: took})
	return failure
}

// errorOf is a failure as an error, nil for none.
func errorOf(failure *kmsapi.Error) error {
	if failure == nil {
		return nil
	}
	return failure
}

// await returns when the call has a turn under its quota and a slot.
func (p *progress) await(ctx context.Context) (err error) {
	began := time.Now()
	ctx, end := tracing.Start(ctx, "wait for a turn at KMS")
	defer func() {
		end(err)
		p.waited += time.Since(began)
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.client.quotas[p.op.class].wait(ctx); err != nil {
		return err
	}
	return p.client.slots.acquire(ctx)
}

func (p *progress) attempt(ctx context.Context, e *endpoint, attempt func(context.Context, kmsapi.KMS) error) *kmsapi.Error {
	ctx, cancel := context.WithTimeout(ctx, p.client.attemptTimeout)
	defer cancel()
	err := attempt(ctx, e.KMS)
	if err == nil {
		return nil
	}
	if failure, ok := errors.AsType[*kmsapi.Error](err); ok {
		return failure
	}
	return &kmsapi.Error{Operation: p.name, Cause: err}
}

// available reports that some endpoint would take a call.
func (c *Client) available() bool {
	for _, e := range c.endpoints {
		if e.circuit.admits() {
			return true
		}
	}
	return false
}

// choose enters the circuit of the first endpoint that takes the call, of those
// first that have not failed it.
func (p *progress) choose() (e *endpoint, probe bool) {
	for _, second := range []bool{false, true} {
		for _, e := range p.client.endpoints {
			if p.avoid[e] != second {
				continue
			}
			if probe, ok := e.circuit.enter(); ok {
				return e, probe
			}
		}
	}
	return nil, false
}

// again decides whether the call is repeated after a failure, and waits until it
// is time to.
func (p *progress) again(ctx context.Context, failure *kmsapi.Error) bool {
	if failure.Stage == kmsapi.StageLocal || ctx.Err() != nil || p.attempts == maxAttempts || !p.op.mayRepeat(failure) {
		return false
	}
	p.unknown = p.unknown || failure.OutcomeUnknown()
	wait := backoff(p.attempts, failure.RetryAfter)
	if !failure.Throttled() && p.alternative() {
		wait = 0
	}
	if deadline, ok := ctx.Deadline(); ok && wait >= time.Until(deadline) || !p.client.budget.take() {
		return false
	}
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

// alternative reports that there is an endpoint that has not failed this call.
func (p *progress) alternative() bool {
	for _, e := range p.client.endpoints {
		if !p.avoid[e] && e.circuit.admits() {
			return true
		}
	}
	return false
}

// local is a failure of this side.
func (p *progress) local(cause error) *kmsapi.Error {
	return &kmsapi.Error{Operation: p.name, Stage: kmsapi.StageLocal, Cause: cause}
}

// final is the failure that the caller sees: what the last attempt met rather than
// why there was no further one, and the doubts of all.
func (p *progress) final(failure *kmsapi.Error) *kmsapi.Error {
	if p.last != nil {
		failure = p.last
	}
	if !p.unknown || !p.op.changes() {
		return failure
	}
	last := *failure
	last.EarlierUnknown = true
	return &last
}

func (p *progress) finish(outcome Outcome) {
	p.client.observer.Called(Call{
		Operation: p.name, Outcome: outcome, Attempts: p.attempts, Waited: p.waited, Took: time.Since(p.began),
	})
}

// verdictOn says what an attempt tells about its endpoint.
func verdictOn(failure *kmsapi.Error) verdict {
	switch {
	case failure == nil:
		return answered
	case failure.Broken():
		return broken
	case failure.Stage == kmsapi.StageLocal, errors.Is(failure.Cause, context.Canceled):
		return unclear
	default:
		return answered
	}
}

func outcomeOf(failure *kmsapi.Error) Outcome {
	if failure == nil {
		return OK
	}
	_, queued := errors.AsType[*ThrottledError](failure.Cause)
	_, unavailable := errors.AsType[*UnavailableError](failure.Cause)
	switch {
	case queued:
		return Queued
	case unavailable:
		return Unavailable
	case errors.Is(failure.Cause, context.Canceled), failure.Stage == kmsapi.StageLocal && errors.Is(failure.Cause, context.DeadlineExceeded):
		return Abandoned
	case failure.Stage == kmsapi.StageLocal:
		return Invalid
	case failure.Throttled():
		return Throttled
	case failure.Broken():
		return Broken
	default:
		return Refused
	}
}
