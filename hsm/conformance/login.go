package conformance

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func loginChecks() []check {
	return []check{
		{Check{"A-01", "a missing PIN is PIN_MISSING", "Nothing is offered to the device, which would count it.",
			"hsm.PINMissing; PKCS#11 2.40, CK_TOKEN_INFO ulMinPinLen"}, missingPIN, withoutToken},
		{Check{"A-02", "a wrong PIN is PIN_INCORRECT", "The operator is told what is wrong, and nobody tries again.",
			"PKCS#11 2.40, CKR_PIN_INCORRECT; Thales, partition policy 20 (failed logins lock the role)"}, wrongPIN, withoutToken},
		{Check{"A-03", "the right PIN works after a wrong one", "The wrong PIN was offered fewer times than the device forgives.",
			"Thales, failed logins (a success resets the count)"}, rightPIN, withoutToken},
	}
}

// mayOffer says whether the run admits wrong PINs.
func (t *trial) mayOffer() error {
	switch {
	case !t.config.Destructive:
		return notRun("it may count as a failed login, and is admitted by --destructive only (Config.Destructive)")
	case t.config.OpenWithPIN == nil:
		return notRun("the backend cannot be opened with another PIN (Config.OpenWithPIN)")
	default:
		return nil
	}
}

func missingPIN(ctx context.Context, t *trial) error {
	if err := t.mayOffer(); err != nil {
		return err
	}
	return t.offer(ctx, []byte{}, "a missing PIN", hsm.PINMissing)
}

// offer opens the token with a PIN that must be refused. It is not tried again
// whatever comes of it.
func (t *trial) offer(ctx context.Context, pin []byte, what string, want hsm.Reason) error {
	if t.stopped != nil {
		return blocked(t.stopped, "the token does not open")
	}
	t.close(ctx)
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	token, err := t.config.OpenWithPIN(ctx, pin)
	t.witness.saw("Open", err)
	if err == nil {
		_ = token.Close(ctx) // it should not be open at all
	}
	return wantReason(err, what, want)
}

// wrongPIN offers eight characters, which every device takes for a PIN:
// opencryptoki admits 4 to 8, Luna 7 to 255.
func wrongPIN(ctx context.Context, t *trial) error {
	if err := t.mayOffer(); err != nil {
		return err
	}
	var random [4]byte
	rand.Read(random[:])
	t.offered = t.stopped == nil
	return t.offer(ctx, fmt.Appendf(nil, "%x", random), "a wrong PIN", hsm.PINIncorrect)
}

func rightPIN(ctx context.Context, t *trial) error {
	if !t.offered {
		return notRun("no wrong PIN was offered")
	}
	return t.reopen(ctx)
}
