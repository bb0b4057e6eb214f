package conformance

import (
	"context"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func closeChecks() []check {
	return []check{
		{Check{"C-01", "calls after Close fail", "Nobody works on with a token that was given back.", basisToken}, closedRefuses, withToken},
		{Check{"C-02", "closing twice does no harm", "Whoever cleans up need not know who did before.", basisToken}, closedTwice, withToken},
		{Check{"C-03", "Close waits for the calls in flight",
			"Calls end with a good answer or a refusal; C_Finalize under a running call crashes the process.",
			"hsm.Token; PKCS#11 2.40, C_Finalize (undefined while other threads make calls)"}, closedInFlight, withToken},
	}
}

func closedRefuses(ctx context.Context, t *trial) error {
	_, _, calls, err := t.everyCall(ctx)
	if err != nil {
		return err
	}
	t.close(ctx)
	for _, call := range calls {
		if call.do(ctx, t.token) == nil {
			return failed("%s was answered although the token is closed", call.name)
		}
	}
	return nil
}

func closedTwice(ctx context.Context, t *trial) error {
	t.close(ctx)
	if err := t.token.Close(ctx); err != nil {
		return failedBy(err, "close the token again")
	}
	return nil
}

// traffic wraps a key from several sides until the token refuses.
type traffic struct {
	trial     *trial
	key       hsm.KeyID
	algorithm hsm.WrappingAlgorithm
	alone     *exported // what every blob has to hold

	begun   chan struct{} // closed after the first wrap
	once    sync.Once
	workers sync.WaitGroup

	mu    sync.Mutex
	wrong error   // an answer that is neither good nor a refusal
	ends  []error // how the workers were refused
}

// start returns when wraps are under way.
func (t *trial) startTraffic(ctx context.Context) (*traffic, error) {
	algorithm, err := t.algorithm(ctx)
	if err != nil {
		return nil, err
	}
	key, err := t.prepare(ctx, "")
	if err != nil {
		return nil, err
	}
	alone, err := t.export(ctx, key.ID, algorithm, 2048)
	if err != nil {
		return nil, blocked(err, "the key cannot be wrapped")
	}
	f := &traffic{trial: t, key: key.ID, algorithm: algorithm, alone: alone, begun: make(chan struct{})}
	const workers = 8
	for range workers {
		f.workers.Go(func() { f.work(ctx) })
	}
	select {
	case <-f.begun:
	case <-ctx.Done():
	}
	return f, nil
}

// work ends with the first refusal. It is bounded, because a token that answers
// after its end would keep it for ever.
func (f *traffic) work(ctx context.Context) {
	defer f.once.Do(func() { close(f.begun) })
	receiver, err := f.trial.rsa.get(2048)
	if err != nil {
		return
	}
	const most = 10_000
	for range most {
		blob, err := f.trial.token.Wrap(ctx, hsm.WrapRequest{Key: f.key, Algorithm: f.algorithm, PublicKey: receiver.spki})
		f.once.Do(func() { close(f.begun) })
		if err != nil {
			f.mu.Lock()
			f.ends = append(f.ends, err)
			f.mu.Unlock()
			return
		}
		opened, err := receiver.open(blob, f.algorithm)
		if err != nil || !opened.equal(f.alone) {
			f.mu.Lock()
			f.wrong = failed("a wrap in flight was answered with %d bytes that are not the wrapped key", len(blob))
			f.mu.Unlock()
			return
		}
	}
}

// wait returns how the workers ended.
func (f *traffic) wait() (ends []error, wrong error) {
	f.workers.Wait()
	return f.ends, f.wrong
}

func closedInFlight(ctx context.Context, t *trial) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f, err := t.startTraffic(ctx)
	if err != nil {
		return err
	}
	closed := t.token.Close(ctx)
	t.close(ctx)
	cancel() // a token that is not closed would have nothing to stop the workers
	_, wrong := f.wait()
	if closed != nil {
		return failedBy(closed, "close the token while calls are in flight")
	}
	return wrong
}
