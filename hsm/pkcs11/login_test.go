package pkcs11

import (
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// What a refused PIN means depends on how many came before it.
func TestWrongPINsAreToldApart(t *testing.T) {
	const other = p11.CKF_LOGIN_REQUIRED | p11.CKF_SO_PIN_LOCKED | p11.CKF_SO_PIN_FINAL_TRY
	for _, test := range []struct {
		name         string
		flags        uint
		reason       hsm.Reason
		says, saysNo string
	}{
		{"not told", other, hsm.PINIncorrect, "not tried again", "lock"},
		{"one of several", other | p11.CKF_USER_PIN_COUNT_LOW, hsm.PINIncorrect, "not tried again", "lock"},
		{"the last but one", other | p11.CKF_USER_PIN_FINAL_TRY, hsm.PINIncorrect, "one more wrong PIN", "officer"},
		{"both", p11.CKF_USER_PIN_COUNT_LOW | p11.CKF_USER_PIN_FINAL_TRY, hsm.PINIncorrect, "one more wrong PIN", "officer"},
		{"the last", p11.CKF_USER_PIN_LOCKED, hsm.PINLocked, "security officer", "one more"},
		{"all", p11.CKF_USER_PIN_COUNT_LOW | p11.CKF_USER_PIN_FINAL_TRY | p11.CKF_USER_PIN_LOCKED, hsm.PINLocked, "security officer", "one more"},
	} {
		t.Run(test.name, func(t *testing.T) {
			refusal := &hsm.Error{Reason: hsm.PINIncorrect, Code: "CKR_PIN_INCORRECT", Detail: "log in; it is not tried again"}
			err := withCount(refusal, test.flags)
			wantReason(t, err, test.reason)
			if err.Code != "CKR_PIN_INCORRECT" || !strings.Contains(err.Detail, test.says) || strings.Contains(err.Detail, test.saysNo) {
				t.Errorf("error %q, want %q and not %q", err, test.says, test.saysNo)
			}
		})
	}
}
