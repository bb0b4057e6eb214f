package failure

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

func TestEveryHSMReasonHasAKind(t *testing.T) {
	for _, reason := range hsm.Reasons() {
		meaning, ok := hsmKinds[reason]
		if !ok {
			t.Errorf("%s has no kind", reason)
		}
		if reason.NeedsOperator() && (meaning.kind != WrongState || meaning.hint == "") {
			t.Errorf("%s must be a wrong state with a hint, is %v %q", reason, meaning.kind, meaning.hint)
		}
	}
}

func TestFrom(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want Kind
	}{
		{"failure stays", fmt.Errorf("x: %w", New(Denied, "R", "no")), Denied},
		{"token gone", hsm.Errorf(hsm.TokenGone, "x"), Unavailable},
		{"not found is spelled Forbidden", &kmsapi.Error{Code: kmsapi.CodeKeyNotFound, Status: 404}, NotFound},
		{"the broker's permission is not the caller's", &kmsapi.Error{Code: kmsapi.CodeNoPermission, Status: 403}, Unavailable},
		{"gateway throttling has status 400", &kmsapi.Error{Code: "Throttling.User", Status: 400}, Throttled},
		{"KMS throttling", &kmsapi.Error{Code: kmsapi.CodeThrottled, Status: 429}, Throttled},
		{"bad signature", &kmsapi.Error{Code: "SignatureDoesNotMatch", Status: 400}, Unavailable},
		{"parameter", &kmsapi.Error{Code: kmsapi.CodeInvalidParameter, Status: 400}, Invalid},
		{"state", &kmsapi.Error{Code: kmsapi.CodeStateModified, Status: 409}, WrongState},
		{"server", &kmsapi.Error{Code: "InternalFailure", Status: 500}, Unavailable},
		{"HTML 502", &kmsapi.Error{Status: 502, Cause: errors.New("no JSON")}, Unavailable},
		{"200 that cannot be believed", &kmsapi.Error{Status: 200, Cause: errors.New("no KeyId")}, Corrupt},
		{"no answer", &kmsapi.Error{Cause: errors.New("connection refused")}, Unavailable},
		{"deadline", context.DeadlineExceeded, Unavailable},
		{"anything else", errors.New("x"), Internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := From(tt.err)
			if got.Kind != tt.want {
				t.Errorf("kind = %v, want %v", got.Kind, tt.want)
			}
			if KindOf(got) != tt.want || got.Error() == "" {
				t.Errorf("KindOf = %v, text %q", KindOf(got), got)
			}
		})
	}
}
