// Package failure is the closed set of kinds that every error of the core
// belongs to. The core makes failures; each door maps a [Kind] to its own
// protocol once (gRPC code, HTTP status, Alibaba code, CKR).
package failure

import (
	"errors"
	"fmt"
	"strings"
)

// Kind tells a caller what a failure means for it.
type Kind int

// The kinds. A door that meets an error without a kind treats it as Internal.
const (
	Internal    Kind = iota // a fault of ours
	Invalid                 // the request is wrong and will stay wrong
	Denied                  // the caller may not do this
	NotFound                // there is no such thing
	WrongState              // the thing exists but is not in a state for this
	Throttled               // come back later, slower
	Unavailable             // something we depend on is away; come back later
	Corrupt                 // bytes that were to be trusted are damaged
)

var names = [...]string{
	Internal: "internal", Invalid: "invalid", Denied: "denied", NotFound: "not found",
	WrongState: "wrong state", Throttled: "throttled", Unavailable: "unavailable", Corrupt: "corrupt",
}

func (k Kind) String() string {
	if k < 0 || int(k) >= len(names) {
		return names[Internal]
	}
	return names[k]
}

// Kinds lists every kind.
func Kinds() []Kind {
	return []Kind{Internal, Invalid, Denied, NotFound, WrongState, Throttled, Unavailable, Corrupt}
}

// Error is a failure as the core reports it.
type Error struct {
	Kind Kind
	// Reason is a stable word for programs, such as "PIN_INCORRECT" or
	// "NO_GRANT".
	Reason string
	// Message says what went wrong and where, for people: lower case, no final
	// dot, no secret.
	Message string
	// Hint says what to do next; may be empty.
	Hint string
	// RequestID is Alibaba's, when a KMS call was behind this.
	RequestID string
	// Err is the underlying error, for errors.Is; it is not shown.
	Err error
}

// New makes a failure.
func New(kind Kind, reason, format string, args ...any) *Error {
	return &Error{Kind: kind, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns e with a hint for the user.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first [*Error] in err's chain, and Internal
// for any other error.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Several makes one failure of those of several parts of a task: of the kind and
// with the hint of the first, and with all their messages. It returns nil for none.
func Several(what string, failed []error) *Error {
	if len(failed) == 0 {
		return nil
	}
	f := *From(failed[0])
	messages := make([]string, len(failed))
	for i, err := range failed {
		messages[i] = From(err).Message
	}
	f.Message = what + ": " + strings.Join(messages, "; ")
	f.Err = errors.Join(failed...)
	return &f
}
