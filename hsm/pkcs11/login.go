package pkcs11

import (
	"context"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// ckuCryptoUser is Luna's user type for the Crypto User (also called
// CKU_LIMITED_USER in Thales' header).
const ckuCryptoUser = 0x80000001

// login opens the session that holds the login. It is the only caller of
// C_Login for [Open].
func login(ctx context.Context, module *p11.Ctx, slot Slot, config Config) (p11.SessionHandle, error) {
	session, err := module.OpenSession(slot.ID, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return 0, deviceError(err, "open a session with token %q", slot.Label)
	}
	user := uint(p11.CKU_USER)
	if config.Role == hsm.CryptoUser {
		user = ckuCryptoUser
	}
	pin, err := config.PIN(ctx, slot.identity())
	if err != nil {
		return 0, err
	}
	defer clear(pin)
	if len(pin) == 0 {
		return 0, hsm.Errorf(hsm.PINMissing, "the PIN for token %q is empty", slot.token.Label)
	}
	if err := module.Login(session, user, string(pin)); err != nil {
		return 0, refusedLogin(module, slot, config.Role, err)
	}
	return session, nil
}

// refusedLogin is the error of a login that the device refused. C_Login says that
// a PIN is wrong; how near the role is to being locked, only the token's flags do.
func refusedLogin(module *p11.Ctx, slot Slot, role hsm.Role, err error) *hsm.Error {
	refusal := deviceError(err, "log in to token %q as %s", slot.Label, role)
	// The flags are about CKU_USER and tell nothing of the Crypto User.
	if refusal.Reason != hsm.PINIncorrect || role != hsm.CryptoOfficer {
		return refusal
	}
	token, err := module.GetTokenInfo(slot.ID)
	if err != nil {
		return refusal
	}
	return withCount(refusal, token.Flags)
}

// withCount adds to a refused PIN what the flags of CK_TOKEN_INFO say of the wrong
// PINs so far (PKCS#11 2.40, section 3.2). CKF_USER_PIN_COUNT_LOW is left out: it
// follows every wrong PIN. A device may keep all of them to itself.
func withCount(refusal *hsm.Error, flags uint) *hsm.Error {
	switch {
	case flags&p11.CKF_USER_PIN_LOCKED != 0:
		// The right PIN would be refused too by now.
		return &hsm.Error{Reason: hsm.PINLocked, Code: refusal.Code,
			Detail: refusal.Detail + advice(hsm.PINLocked)}
	case flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return &hsm.Error{Reason: refusal.Reason, Code: refusal.Code,
			Detail: refusal.Detail + "; one more wrong PIN locks the role"}
	default:
		return refusal
	}
}
