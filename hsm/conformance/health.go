package conformance

import "context"

func healthChecks() []check {
	return []check{
		{Check{"H-01", "a working token is healthy", "The supervisor lets a good backend live.", basisToken}, healthy, withToken},
		{Check{"H-02", "a busy token is healthy", "The supervisor does not take load for a fault.", basisToken}, healthyUnderLoad, withToken},
	}
}

func healthy(ctx context.Context, t *trial) error {
	if err := t.token.Health(ctx); err != nil {
		return failedBy(err, "the token is not healthy")
	}
	return nil
}

func healthyUnderLoad(ctx context.Context, t *trial) error {
	algorithm, err := t.algorithm(ctx)
	if err != nil {
		return err
	}
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	if err := t.token.Health(ctx); err != nil {
		return blocked(err, "the token is not healthy even at rest")
	}
	return parallel(t.config.Concurrency, func(i int) error {
		if i%2 == 0 {
			// Whether it works is for other checks.
			_, _ = t.export(ctx, key.ID, algorithm, 2048)
			return nil
		}
		if err := t.token.Health(ctx); err != nil {
			return failedBy(err, "the token is not healthy while it wraps")
		}
		return nil
	})
}
