package serve

import (
	"cmp"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// ErrorDomain is the domain of the google.rpc.ErrorInfo on every failure that
// comes from the broker itself and not from the transport.
const ErrorDomain = "kmsbroker"

var codeOf = map[failure.Kind]codes.Code{
	failure.Internal:    codes.Internal,
	failure.Invalid:     codes.InvalidArgument,
	failure.Denied:      codes.PermissionDenied,
	failure.NotFound:    codes.NotFound,
	failure.WrongState:  codes.FailedPrecondition,
	failure.Throttled:   codes.ResourceExhausted,
	failure.Unavailable: codes.Unavailable,
	failure.Corrupt:     codes.DataLoss,
}

// hints are for failures that have none of their own.
var hints = map[failure.Kind]string{
	failure.Internal:    "the log of kmsbrokerd has the details",
	failure.Invalid:     "correct the request; it would fail again as it is",
	failure.Denied:      "`kmsbrokerctl whoami` tells what you may do",
	failure.NotFound:    "check the name; `kmsbrokerctl whoami` lists the keys that you may use",
	failure.WrongState:  "an administrator can tell more with `kmsbrokerctl key show`",
	failure.Throttled:   "call again later, and less often",
	failure.Unavailable: "try again in a moment; `kmsbrokerctl status` tells an administrator what is away",
	failure.Corrupt:     "do not use the answer; tell an administrator",
}

// Status turns an error of the core into what goes over the socket.
func Status(err error) error {
	if err == nil {
		return nil
	}
	f := failure.From(err)
	metadata := map[string]string{"hint": cmp.Or(f.Hint, hints[f.Kind])}
	if f.RequestID != "" {
		metadata["request_id"] = f.RequestID
	}
	s := status.New(codeOf[f.Kind], f.Message)
	detailed, err := s.WithDetails(&errdetails.ErrorInfo{Reason: f.Reason, Domain: ErrorDomain, Metadata: metadata})
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}
