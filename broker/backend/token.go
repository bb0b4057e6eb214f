package backend

import (
	"context"
	"errors"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

const (
	// readyWait bounds how long a call waits for the first process.
	readyWait = 5 * time.Second
	// replaceWait is how long after the loss of a process calls wait for the next. It
	// takes well under a second when the device is there; when the device hangs, no
	// failed start says so for long.
	replaceWait = 2 * time.Second
)

// Token returns the backend's token. Its calls wait for a moment while the
// process is being replaced; one that finds the token gone is repeated once on
// the next process, which the contracts of [hsm.Token] make safe.
func (b *Backend) Token() hsm.Token { return token{b} }

type token struct{ backend *Backend }

// current waits until the backend is ready and returns its token.
func (b *Backend) current(ctx context.Context) (hsm.Token, error) {
	timeout := time.NewTimer(readyWait)
	defer timeout.Stop()
	for {
		b.mu.Lock()
		token, status, changed, down, lost := b.token, b.status, b.changed, b.down, b.lost
		b.mu.Unlock()
		if status.State == Restarting && !lost.IsZero() {
			timeout.Reset(time.Until(lost.Add(replaceWait)))
		}
		switch {
		case token != nil:
			return token, nil
		case status.State == WaitingForPIN:
			return nil, b.waiting()
		case status.State == Blocked:
			return nil, b.unavailable(hsm.ReasonOf(status.Err), "is blocked", status.Err)
		case down && status.Err != nil, status.State == Stopped:
			return nil, b.unavailable(hsm.TokenGone, "is "+string(status.State), status.Err)
		}
		select {
		case <-changed:
		case <-timeout.C:
			return nil, b.unavailable(hsm.TokenGone, "is "+string(status.State), status.Err)
		case <-ctx.Done():
			return nil, b.unavailable(hsm.Timeout, "did not become ready in time", status.Err)
		}
	}
}

func (b *Backend) unavailable(reason hsm.Reason, how string, cause error) error {
	e := hsm.Errorf(reason, "backend %q %s", b.config.Name, how)
	if cause != nil {
		e.Detail += ": " + cause.Error()
	}
	return e
}

// call runs f on the current process' token, and once more on the next one when
// the first went away under it.
func call[T any](ctx context.Context, b *Backend, f func(context.Context, hsm.Token) (T, error)) (T, error) {
	return callWithin(ctx, b, b.config.CallTimeout, f)
}

func callWithin[T any](ctx context.Context, b *Backend, limit time.Duration, f func(context.Context, hsm.Token) (T, error)) (T, error) {
	var zero T
	first, err := b.current(ctx)
	if err != nil {
		return zero, err
	}
	answer, err := device(ctx, b, first, limit, f)
	if !errors.Is(err, hsm.TokenGone) {
		return answer, err
	}
	if err := b.replaced(ctx, first); err != nil {
		return zero, err
	}
	second, err := b.current(ctx)
	if err != nil {
		return zero, err
	}
	return device(ctx, b, second, limit, f)
}

// device runs a call with its time limit. A caller may leave earlier, the call
// goes on: nothing can interrupt a vendor library, and only the whole deadline
// tells a hung one from an impatient caller.
func device[T any](ctx context.Context, b *Backend, token hsm.Token, limit time.Duration, f func(context.Context, hsm.Token) (T, error)) (T, error) {
	type outcome struct {
		answer T
		err    error
	}
	done := make(chan outcome, 1)
	b.calls.Go(func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		answer, err := f(limited, token)
		if errors.Is(err, hsm.Timeout) && limited.Err() != nil {
			b.hung(token, limit)
		}
		done <- outcome{answer, err}
	})
	select {
	case o := <-done:
		return o.answer, o.err
	case <-ctx.Done():
		var none T
		return none, b.unavailable(hsm.Timeout, "did not answer before the caller gave up", ctx.Err())
	}
}

// hung has the process of a token replaced, if it is still the current one. Its
// health check may pass all the same: one stuck call leaves the others alive.
func (b *Backend) hung(token hsm.Token, limit time.Duration) {
	b.mu.Lock()
	process, same := b.process, b.token == token
	b.mu.Unlock()
	if same {
		b.config.Log.Warn("a call did not end in time, killing the plugin", "backend", b.config.Name, "timeout", limit)
		process.Kill()
	}
}

// replaced reports a token as suspect and waits until it was replaced or has
// passed its health check.
func (b *Backend) replaced(ctx context.Context, old hsm.Token) error {
	b.mu.Lock()
	changed, same := b.changed, b.token == old
	b.mu.Unlock()
	if !same {
		return nil
	}
	healthy := make(chan struct{})
	ask := b.suspect
	timeout := time.NewTimer(readyWait)
	defer timeout.Stop()
	for {
		select {
		case ask <- healthy:
			ask = nil // asked
		case <-healthy:
			return nil
		case <-changed:
			return nil
		case <-timeout.C:
			return b.unavailable(hsm.TokenGone, "lost its token during the call", nil)
		case <-ctx.Done():
			return b.unavailable(hsm.Timeout, "lost its token during the call", ctx.Err())
		}
	}
}

func (t token) Describe(ctx context.Context) (*hsm.Info, error) {
	return call(ctx, t.backend, func(ctx context.Context, h hsm.Token) (*hsm.Info, error) { return h.Describe(ctx) })
}

func (t token) GenerateKey(ctx context.Context, spec hsm.KeySpec) (*hsm.Key, error) {
	return call(ctx, t.backend, func(ctx context.Context, h hsm.Token) (*hsm.Key, error) { return h.GenerateKey(ctx, spec) })
}

// listCalls is how many calls' time a list may take: it is as many calls on the
// device as there are keys, and a slow device needs 200 ms for each.
const listCalls = 10

func (t token) Keys(ctx context.Context) ([]hsm.Key, error) {
	return callWithin(ctx, t.backend, listCalls*t.backend.config.CallTimeout, func(ctx context.Context, h hsm.Token) ([]hsm.Key, error) { return h.Keys(ctx) })
}

func (t token) Key(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	return call(ctx, t.backend, func(ctx context.Context, h hsm.Token) (*hsm.Key, error) { return h.Key(ctx, id) })
}

func (t token) CheckValue(ctx context.Context, id hsm.KeyID) (hsm.CheckValue, error) {
	return call(ctx, t.backend, func(ctx context.Context, h hsm.Token) (hsm.CheckValue, error) { return h.CheckValue(ctx, id) })
}

func (t token) Wrap(ctx context.Context, req hsm.WrapRequest) ([]byte, error) {
	return call(ctx, t.backend, func(ctx context.Context, h hsm.Token) ([]byte, error) { return h.Wrap(ctx, req) })
}

func (t token) SealKey(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	return call(ctx, t.backend, func(ctx context.Context, h hsm.Token) (*hsm.Key, error) { return h.SealKey(ctx, id) })
}

func (t token) DestroyKey(ctx context.Context, id hsm.KeyID) error {
	attempts := 0
	_, err := call(ctx, t.backend, func(ctx context.Context, h hsm.Token) (struct{}, error) {
		attempts++
		err := h.DestroyKey(ctx, id)
		if attempts > 1 && errors.Is(err, hsm.NotFound) {
			err = nil // the first attempt, whose answer was lost, has worked
		}
		return struct{}{}, err
	})
	return err
}

func (t token) Health(ctx context.Context) error {
	_, err := call(ctx, t.backend, func(ctx context.Context, h hsm.Token) (struct{}, error) { return struct{}{}, h.Health(ctx) })
	return err
}

// Close does nothing: the process belongs to the supervisor.
func (t token) Close(context.Context) error { return nil }
