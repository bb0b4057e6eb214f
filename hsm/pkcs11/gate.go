package pkcs11

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// gate lets calls into the library: any number that leave the token's objects as
// they are, or one that changes them. Nobody overtakes whoever waits to be alone.
type gate struct{ places *semaphore.Weighted }

// passage is how many places a call takes.
type passage int64

const (
	shared    passage = 1
	exclusive passage = 1 << 30
)

func newGate() gate { return gate{semaphore.NewWeighted(int64(exclusive))} }

// enter fails with ctx alone.
func (g gate) enter(ctx context.Context, p passage) error { return g.places.Acquire(ctx, int64(p)) }

func (g gate) leave(p passage) { g.places.Release(int64(p)) }
