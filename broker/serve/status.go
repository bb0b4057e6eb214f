package serve

import (
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

// Status turns an error of the core into what goes over the socket.
func Status(err error) error {
	if err == nil {
		return nil
	}
	f := failure.From(err)
	metadata := map[string]string{}
	if f.Hint != "" {
		metadata["hint"] = f.Hint
	}
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
