package alibaba

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

func TestEveryKindHasACode(t *testing.T) {
	for _, kind := range failure.Kinds() {
		if c := codes[kind]; c.status < 400 || c.code == "" {
			t.Errorf("%v is %+v", kind, c)
		}
	}
}

func TestRefusal(t *testing.T) {
	kms := func(status int, code string) error {
		return &kmsapi.Error{Operation: "Encrypt", Code: code, Status: status, Message: "m", RequestID: "r"}
	}
	for name, test := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"denied":                   {failure.New(failure.Denied, "NO_GRANT", "no"), 403, "Forbidden.NoPermission"},
		"rate":                     {failure.New(failure.Throttled, "GRANT_RATE", "no"), 429, "Rejected.Throttling"},
		"no trail":                 {failure.New(failure.Unavailable, "AUDIT", "no"), 503, "ServiceUnavailableTemporary"},
		"no time":                  {context.DeadlineExceeded, 503, "ServiceUnavailableTemporary"},
		"unknown":                  {errors.New("x"), 500, "InternalFailure"},
		"of the protocol":          {wire.ErrUnknownAction, 404, "InvalidAction.NotFound"},
		"signature":                {notSigned(wire.ErrUnknownAccessKey), 404, "InvalidAccessKeyId.NotFound"},
		"KMS: disabled":            {kms(409, kmsapi.CodeDisabled), 409, "Rejected.Disabled"},
		"KMS: pending import":      {kms(409, kmsapi.CodePendingImport), 409, "Rejected.PendingImport"},
		"KMS: deleted":             {kms(404, kmsapi.CodeKeyNotFound), 404, "Forbidden.KeyNotFound"},
		"KMS: throttled":           {kms(429, kmsapi.CodeThrottled), 429, "Rejected.Throttling"},
		"KMS: wrong":               {kms(400, kmsapi.CodeInvalidParameter), 400, "InvalidParameter"},
		"KMS: broker may not":      {kms(403, kmsapi.CodeNoPermission), 503, "ServiceUnavailableTemporary"},
		"KMS: broker's access key": {kms(404, "InvalidAccessKeyId.NotFound"), 503, "ServiceUnavailableTemporary"},
		"KMS: away":                {&kmsapi.Error{Operation: "Encrypt", Cause: errors.New("refused")}, 503, "ServiceUnavailableTemporary"},
		"KMS: unwell":              {kms(500, "InternalFailure"), 503, "ServiceUnavailableTemporary"},
		"KMS: unreadable":          {&kmsapi.Error{Operation: "Encrypt", Status: http.StatusOK, Cause: errors.New("x")}, 500, "InternalFailure"},
	} {
		got := refusal(test.err)
		if got.Status != test.status || got.Code != test.code || got.Message == "" {
			t.Errorf("%s: %+v, want %d %s", name, got, test.status, test.code)
		}
		if f := failure.From(asFailure(test.err)); f.Kind == failure.Internal && name != "unknown" {
			t.Errorf("%s counts as a fault of ours", name)
		}
	}
	hinted := refusal(failure.New(failure.Denied, "NO_GRANT", "no grant").WithHint("ask"))
	if !strings.HasSuffix(hinted.Message, "no grant (ask)") {
		t.Errorf("%q", hinted.Message)
	}
}
