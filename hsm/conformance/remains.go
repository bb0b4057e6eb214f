package conformance

import (
	"context"
	"slices"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func remainsChecks() []check {
	return []check{
		{Check{"Z-01", "the suite's keys are gone", "The token is as it was before, as far as the suite is concerned.",
			"the suite's own promise"}, cleared, atEnd},
		{Check{"Z-02", "the keys of others are as they were", "No call touched, made or removed a key that it was not about.",
			"the suite's own promise; hsm.Token"}, foreignUntouched, atEnd},
	}
}

// cleared finds a key left behind when it could not be destroyed, or when both
// the list and the key itself say that it is still there. One of them alone is
// for the checks of listing and destruction.
func cleared(ctx context.Context, t *trial) error {
	if t.untouched() {
		return notRun("no key was made")
	}
	t.remove(ctx)
	token, err := t.ensure(ctx)
	if err != nil {
		return blocked(err, "the token does not open")
	}
	if left := t.pending(); len(left) > 0 {
		return failed("%d keys could not be destroyed, the first is %s", len(left), left[0])
	}
	keys, err := token.Keys(ctx)
	if err != nil {
		return blocked(err, "the keys cannot be listed")
	}
	var left []hsm.KeyID
	for _, k := range keys {
		if !t.ours(k.ID) {
			continue
		}
		if _, err := token.Key(ctx, k.ID); err == nil {
			left = append(left, k.ID)
			t.track(k.ID)
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		return failed("%d keys were destroyed and are still there, the first is %s", len(left), left[0])
	}
	return nil
}

func foreignUntouched(ctx context.Context, t *trial) error {
	switch {
	case t.foreignErr != nil:
		return blocked(t.foreignErr, "the keys could not be listed at the start")
	case t.foreign == nil:
		return blocked(t.stopped, "the token never opened")
	}
	token, err := t.ensure(ctx)
	if err != nil {
		return blocked(err, "the token does not open")
	}
	keys, err := token.Keys(ctx)
	if err != nil {
		return blocked(err, "the keys cannot be listed")
	}
	before, after := t.foreign, t.survey(keys)
	vanished, appeared := missing(before, after), missing(after, before)
	if vanished+appeared > 0 {
		return failed("of the keys that are not the suite's, %d vanished or changed and %d appeared (or somebody else worked on the token meanwhile)",
			vanished, appeared)
	}
	total := 0
	for _, n := range before {
		total += n
	}
	t.notef("%d keys of others", total)
	return nil
}

// missing counts what of one survey is not in the other.
func missing(from, in map[string]int) (n int) {
	for look, count := range from {
		n += max(0, count-in[look])
	}
	return n
}
