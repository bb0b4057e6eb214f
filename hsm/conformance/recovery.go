package conformance

import (
	"context"
	"errors"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func recoveryChecks() []check {
	return []check{
		{Check{"R-01", "a key outlives the session that made it", "The key is stored on the token.",
			"hsm.KeySpec; PKCS#11 2.40, CKA_TOKEN"}, outlivesClose, withToken},
		{Check{"R-02", "a generation can be repeated in another process", "The ID is looked up on the token and not in memory.",
			basisToken}, repeatedElsewhere, withToken},
		{Check{"R-03", "a key outlives a killed process", "What was answered is on the token, whatever happens to the process.",
			basisToken}, outlivesKill, withToken},
		{Check{"R-04", "calls in flight end when the process is killed", "The caller is told TOKEN_GONE at once and knows that it may come back.",
			"hsm.TokenGone"}, killedInFlight, withToken},
	}
}

// survives makes a key, ends the token by end, opens a fresh one and looks for
// the key.
func (t *trial) survives(ctx context.Context, end func() error) (hsm.KeyID, error) {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return "", err
	}
	before, err := t.token.CheckValue(ctx, key.ID)
	if err != nil {
		return "", blocked(err, "no check value can be computed")
	}
	if err := end(); err != nil {
		return "", blocked(err, "end the process")
	}
	if err := t.reopen(ctx); err != nil {
		return "", err
	}
	if _, err := t.token.Key(ctx, key.ID); err != nil {
		return "", failedBy(err, "read the key after the token was opened again")
	}
	after, err := t.token.CheckValue(ctx, key.ID)
	if err != nil {
		return "", failedBy(err, "compute the check value after the token was opened again")
	}
	if after != before {
		return "", failed("the check value was %s and is %s", before, after)
	}
	return key.ID, nil
}

func outlivesClose(ctx context.Context, t *trial) error {
	_, err := t.survives(ctx, func() error { return nil })
	return err
}

func repeatedElsewhere(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	if err := t.reopen(ctx); err != nil {
		return err
	}
	if _, err := t.token.GenerateKey(ctx, hsm.KeySpec{ID: key.ID, Label: key.Label}); err != nil {
		return failedBy(err, "repeat a generation after the token was opened again")
	}
	return t.notTwice(ctx, key.ID)
}

func outlivesKill(ctx context.Context, t *trial) error {
	if t.config.Kill == nil {
		return notRun("there is no process to kill (Config.Kill)")
	}
	_, err := t.survives(ctx, t.config.Kill)
	return err
}

func killedInFlight(ctx context.Context, t *trial) error {
	if t.config.Kill == nil {
		return notRun("there is no process to kill (Config.Kill)")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f, err := t.startTraffic(ctx)
	if err != nil {
		return err
	}
	if err := t.config.Kill(); err != nil {
		cancel()
		_, _ = f.wait()
		return blocked(err, "kill the process")
	}
	ends, wrong := f.wait()
	ends = append(ends, t.token.Health(ctx))
	t.close(ctx)
	if wrong != nil {
		return wrong
	}
	for _, end := range ends {
		if !errors.Is(end, hsm.TokenGone) {
			return wantReason(end, "a call to a killed process", hsm.TokenGone)
		}
	}
	return nil
}
