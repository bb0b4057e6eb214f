package alibaba

import (
	"errors"
	"net/http"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// codes are Alibaba Cloud's words for the kinds of failures. SDKs repeat what is
// Rejected.Throttling, ServiceUnavailableTemporary and InternalFailure.
var codes = map[failure.Kind]struct {
	status int
	code   string
}{
	failure.Internal:    {http.StatusInternalServerError, "InternalFailure"},
	failure.Invalid:     {http.StatusBadRequest, "InvalidParameter"},
	failure.Denied:      {http.StatusForbidden, "Forbidden.NoPermission"},
	failure.NotFound:    {http.StatusNotFound, "Forbidden.KeyNotFound"},
	failure.WrongState:  {http.StatusConflict, "Rejected.Unavailable"},
	failure.Throttled:   {http.StatusTooManyRequests, "Rejected.Throttling"},
	failure.Unavailable: {http.StatusServiceUnavailable, "ServiceUnavailableTemporary"},
	failure.Corrupt:     {http.StatusInternalServerError, "InternalFailure"},
}

// refusal is a failure as the protocol spells it. What the protocol itself refused
// stays as it is. What KMS said of the caller's request keeps KMS's code; what it
// said of the broker's own rights and access key is not the caller's to read.
func refusal(err error) *wire.Error {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e
	}
	f := failure.From(err)
	refused := &wire.Error{Status: codes[f.Kind].status, Code: codes[f.Kind].code, Message: f.Message}
	if f.Hint != "" {
		refused.Message += " (" + f.Hint + ")"
	}
	said, ok := errors.AsType[*kmsapi.Error](err)
	if ok && said.Code != "" && said.Status >= http.StatusBadRequest {
		switch f.Kind {
		case failure.Invalid, failure.NotFound, failure.WrongState, failure.Throttled:
			refused.Status, refused.Code = said.Status, said.Code
		default:
		}
	}
	return refused
}

// asFailure gives what the protocol refused a kind, for whoever counts failures.
func asFailure(err error) error {
	e, ok := errors.AsType[*wire.Error](err)
	if _, done := errors.AsType[*failure.Error](err); !ok || done {
		return err
	}
	f := failure.New(failure.Invalid, "REQUEST", "%v", e)
	f.Err = err
	return f
}
