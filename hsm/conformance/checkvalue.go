package conformance

import (
	"context"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func checkValueChecks() []check {
	return []check{
		{Check{"K-01", "the check value is that of the value that leaves the token",
			"The check value identifies the material that the cloud gets.",
			"PKCS#11 2.40, CKA_CHECK_VALUE of a secret key"}, checkValueTrue, withToken},
		{Check{"K-02", "the check value of an unknown key is NOT_FOUND", "No check value is invented.", basisToken}, checkValueUnknown, withToken},
	}
}

// checkValueTrue accepts the check value when it agrees with any algorithm:
// which of them export another value is for the checks of the algorithms.
func checkValueTrue(ctx context.Context, t *trial) error {
	declared, err := t.algorithms(ctx)
	if err != nil {
		return err
	}
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	got, err := t.token.CheckValue(ctx, key.ID)
	if err != nil {
		return failedBy(err, "compute the check value")
	}
	var wrong error
	for _, algorithm := range declared {
		opened, err := t.export(ctx, key.ID, algorithm, 2048)
		if err != nil {
			continue
		}
		want, err := opened.checkValue()
		if err == nil && want == got {
			return nil
		}
		wrong = failed("the token computes %s, the value that leaves it has %s", got, want)
	}
	if wrong == nil {
		return blocked(nil, "no blob could be opened to compare with")
	}
	t.believed = false
	return wrong
}

func checkValueUnknown(ctx context.Context, t *trial) error {
	_, err := t.token.CheckValue(ctx, hsm.NewKeyID())
	return wantReason(err, "the check value of a key that does not exist", hsm.NotFound)
}
