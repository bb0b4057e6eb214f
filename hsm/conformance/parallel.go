package conformance

import (
	"context"
	"fmt"
	"slices"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func parallelChecks() []check {
	return []check{
		{Check{"P-01", "many wraps at once all succeed", "More calls than the device has sessions wait for one instead of failing.",
			"hsm.Token (all methods may be called concurrently); PKCS#11 2.40, CKR_SESSION_COUNT"}, wrapsTogether, withToken},
		{Check{"P-02", "calls of different kinds do not mix up their keys", "Each caller gets the answer to its own call.",
			"hsm.Token (all methods may be called concurrently); PKCS#11 2.40, one operation per session"}, mixedLoad, withToken},
	}
}

func wrapsTogether(ctx context.Context, t *trial) error {
	algorithm, err := t.algorithm(ctx)
	if err != nil {
		return err
	}
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	alone, err := t.export(ctx, key.ID, algorithm, 2048)
	if err != nil {
		return blocked(err, "the key cannot be wrapped even alone")
	}
	err = parallel(t.config.Concurrency, func(int) error {
		opened, err := t.export(ctx, key.ID, algorithm, 2048)
		if err == nil && !opened.equal(alone) {
			return failed("one of %d blobs holds another value", t.config.Concurrency)
		}
		return err
	})
	if err == nil {
		t.notef("%d at once", t.config.Concurrency)
	}
	return err
}

// mixedLoad gives each worker a key of its own and lets all do everything.
func mixedLoad(ctx context.Context, t *trial) error {
	algorithm, err := t.algorithm(ctx)
	if err != nil {
		return err
	}
	const workers, rounds = 8, 3
	values := make([]*exported, workers)
	err = parallel(workers, func(i int) error {
		key, err := t.prepare(ctx, fmt.Sprintf("/%d", i))
		if err != nil {
			return err
		}
		for range rounds {
			if err := t.work(ctx, key, algorithm, &values[i]); err != nil {
				return err
			}
		}
		if err := t.token.DestroyKey(ctx, key.ID); err != nil {
			return failedBy(err, "destroy a key among other calls")
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, value := range values {
		if slices.ContainsFunc(values[:i], value.equal) {
			return failed("two keys left the token with the same value")
		}
	}
	return nil
}

// work is one round of a worker. The value that left the token first is kept in
// first.
func (t *trial) work(ctx context.Context, key *hsm.Key, algorithm hsm.WrappingAlgorithm, first **exported) error {
	read, err := t.token.Key(ctx, key.ID)
	if err != nil {
		return failedBy(err, "read a key among other calls")
	}
	if read.ID != key.ID {
		return failed("asked was key %s, the answer was about %s", key.ID, read.ID)
	}
	opened, err := t.export(ctx, key.ID, algorithm, 2048)
	if err != nil {
		return err
	}
	if *first == nil {
		*first = opened
	}
	if !opened.equal(*first) {
		return failed("a key left the token with two values")
	}
	if _, err := t.token.CheckValue(ctx, key.ID); err != nil {
		return failedBy(err, "compute a check value among other calls")
	}
	if _, err := t.token.Keys(ctx); err != nil {
		return failedBy(err, "list the keys among other calls")
	}
	return nil
}
