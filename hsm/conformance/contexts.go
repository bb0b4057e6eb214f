package conformance

import (
	"context"
	"errors"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

const basisContext = "hsm.Token (a context that ends makes the call return early)"

func contextChecks() []check {
	return []check{
		{Check{"X-01", "a call whose context was cancelled before does nothing", "What nobody waits for is not done.",
			basisContext}, cancelledDoesNothing, withToken},
		{Check{"X-02", "a cancelled call says so", "The caller can tell its own cancellation from a fault of the device.",
			basisContext + "; hsm.Timeout, hsm.Busy"}, endedSaysSo(context.WithCancel), withToken},
		{Check{"X-03", "a call whose deadline has passed says so", "The caller can tell lack of time from a fault of the device.",
			basisContext + "; hsm.Timeout, hsm.Busy"}, endedSaysSo(withPassedDeadline), withToken},
		{Check{"X-04", "deadlines are honoured under load", "A caller is not kept waiting for a session long after it gave up.",
			basisContext}, deadlinesHonoured, withToken},
		{Check{"X-05", "calls that were given up cost nothing later", "No session or place in a queue is lost with them.",
			"PKCS#11 2.40, CKR_SESSION_COUNT and CKR_OPERATION_ACTIVE"}, givenUp, withToken},
	}
}

// deviceCall is a call that cannot be answered without the device. Describe is
// none, because it may answer from memory.
type deviceCall struct {
	name string
	do   func(ctx context.Context, token hsm.Token) error
}

// deviceCalls are calls of every kind about a key, and about one that is made by
// the first of them.
func (t *trial) deviceCalls(id hsm.KeyID, fresh hsm.KeySpec, wrap *hsm.WrapRequest) []deviceCall {
	calls := []deviceCall{
		{"GenerateKey", func(ctx context.Context, token hsm.Token) error { _, err := token.GenerateKey(ctx, fresh); return err }},
		{"Keys", func(ctx context.Context, token hsm.Token) error { _, err := token.Keys(ctx); return err }},
		{"Key", func(ctx context.Context, token hsm.Token) error { _, err := token.Key(ctx, id); return err }},
		{"CheckValue", func(ctx context.Context, token hsm.Token) error { _, err := token.CheckValue(ctx, id); return err }},
		{"Health", func(ctx context.Context, token hsm.Token) error { return token.Health(ctx) }},
		{"SealKey", func(ctx context.Context, token hsm.Token) error { _, err := token.SealKey(ctx, id); return err }},
		{"DestroyKey", func(ctx context.Context, token hsm.Token) error { return token.DestroyKey(ctx, id) }},
	}
	if wrap != nil {
		calls = append(calls, deviceCall{"Wrap", func(ctx context.Context, token hsm.Token) error { _, err := token.Wrap(ctx, *wrap); return err }})
	}
	return calls
}

// everyCall prepares deviceCalls about a new key.
func (t *trial) everyCall(ctx context.Context) (victim hsm.KeyID, fresh hsm.KeySpec, calls []deviceCall, err error) {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return "", fresh, nil, err
	}
	fresh = t.spec("/fresh")
	var wrap *hsm.WrapRequest
	if algorithm, err := t.algorithm(ctx); err == nil {
		receiver, err := t.rsa.get(2048)
		if err != nil {
			return "", fresh, nil, blocked(err, "no RSA key could be made")
		}
		wrap = &hsm.WrapRequest{Key: key.ID, Algorithm: algorithm, PublicKey: receiver.spki}
	}
	return key.ID, fresh, t.deviceCalls(key.ID, fresh, wrap), nil
}

func cancelledDoesNothing(ctx context.Context, t *trial) error {
	victim, fresh, calls, err := t.everyCall(ctx)
	if err != nil {
		return err
	}
	before, err := t.token.Key(ctx, victim)
	if err != nil {
		return blocked(err, "the key cannot be read")
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, call := range calls {
		if call.do(ended, t.token) == nil {
			return failed("%s was answered although its context was cancelled before", call.name)
		}
	}
	if _, err := t.token.Key(ctx, fresh.ID); err == nil {
		return failed("a generation that was cancelled before made a key")
	}
	after, err := t.token.Key(ctx, victim)
	switch {
	case err != nil:
		return failedBy(err, "read a key whose destruction was cancelled before")
	case appearance(*before) != appearance(*after):
		return failed("a key whose sealing was cancelled before was %s and is %s", appearance(*before), appearance(*after))
	}
	return nil
}

func withPassedDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadline(ctx, time.Unix(0, 0))
}

// endedSaysSo looks at how calls fail that end has ended. Whether they do is
// for other checks, except that a passed deadline must not be overlooked.
func endedSaysSo(end func(context.Context) (context.Context, context.CancelFunc)) func(ctx context.Context, t *trial) error {
	return func(ctx context.Context, t *trial) error {
		_, _, calls, err := t.everyCall(ctx)
		if err != nil {
			return err
		}
		ended, cancel := end(ctx)
		cancel()
		for _, call := range calls {
			err := call.do(ended, t.token)
			switch {
			case err == nil && errors.Is(ended.Err(), context.DeadlineExceeded):
				return failed("%s was answered although its deadline had passed", call.name)
			case err != nil && !ofContext(err):
				return failedBy(err, "%s ended with its context, and says", call.name)
			}
		}
		return nil
	}
}

// ofContext reports whether err is how a call ends with its context.
func ofContext(err error) bool {
	return errors.Is(err, hsm.Timeout) || errors.Is(err, hsm.Busy) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// deadlinesHonoured asks for more than the token can do in the time. A call
// inside a vendor library cannot be interrupted, so what is demanded is that
// every call comes back at all soon after.
func deadlinesHonoured(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	const deadline = 200 * time.Millisecond
	const bound = deadline*12/10 + grace
	return within(bound, func() error {
		ctx, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		return parallel(t.config.Concurrency, func(int) error {
			const calls = 20
			for range calls {
				_, err := t.token.CheckValue(ctx, key.ID)
				if err != nil && !ofContext(err) {
					return failedBy(err, "a call with a deadline, among %d", t.config.Concurrency)
				}
			}
			return nil
		})
	})
}

func givenUp(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	// What these calls answer is for other checks.
	_ = parallel(t.config.Concurrency, func(int) error {
		ctx, cancel := context.WithCancel(ctx)
		go cancel()
		_, _ = t.token.CheckValue(ctx, key.ID)
		cancel()
		_, _ = t.token.CheckValue(ctx, key.ID)
		return nil
	})
	return parallel(t.config.Concurrency, func(int) error {
		if _, err := t.token.CheckValue(ctx, key.ID); err != nil {
			return failedBy(err, "compute a check value after %d calls were given up", 2*t.config.Concurrency)
		}
		return nil
	})
}
