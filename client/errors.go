package client

import "google.golang.org/grpc/codes"

const errorDomain = "kmsbroker"

// Reasons of errors that the daemon has not put into words itself.
const (
	ReasonUnreachable = "UNREACHABLE"  // nobody answered
	ReasonCanceled    = "CANCELED"     // the caller gave up
	ReasonDeadline    = "DEADLINE"     // of the caller or of the daemon
	ReasonMessageSize = "MESSAGE_SIZE" // the request was not read
)

// Error is a failed call.
type Error struct {
	// Code is the kind of failure: InvalidArgument, PermissionDenied, NotFound,
	// FailedPrecondition (not in a state for this), ResourceExhausted (slow
	// down), Unavailable (try later), DataLoss (corrupt), Internal.
	Code      codes.Code
	Reason    string // a stable word, such as "NO_GRANT"
	Message   string // a sentence for people
	Hint      string // what to do next; may be empty
	RequestID string // Alibaba Cloud's, when KMS was asked
	Err       error  // the error of the connection or of gRPC
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }
