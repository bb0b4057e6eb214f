package hsm

import (
	"errors"
	"fmt"
)

// Reason is why a token refused or failed a call, told by what the caller can
// do about it. A Reason is an error, so errors.Is(err, hsm.NotFound) works on
// any error of this package.
type Reason string

// The reasons. The text is the wire form and never changes.
const (
	// PINIncorrect: the PIN is wrong. It must not be tried again: ten wrong
	// attempts lock or wipe a Luna partition.
	PINIncorrect Reason = "PIN_INCORRECT"
	// PINLocked: the device has locked the role; a security officer must act.
	PINLocked Reason = "PIN_LOCKED"
	// PINExpired: the PIN must be changed before the role can work.
	PINExpired Reason = "PIN_EXPIRED"
	// PINMissing: the role has no PIN yet, or none was configured.
	PINMissing Reason = "PIN_MISSING"
	// LoginUnclear: logins were attempted and nobody knows how they ended, so
	// that one more could be one wrong PIN too many.
	LoginUnclear Reason = "LOGIN_UNCLEAR"
	// TokenGone: the token, the link to it or the plugin process is away. The
	// call may be repeated when the backend is back.
	TokenGone Reason = "TOKEN_GONE"
	// Busy: no session was free in time, or the device asks to come back.
	Busy Reason = "BUSY"
	// Timeout: the deadline passed. The outcome is unknown.
	Timeout Reason = "TIMEOUT"
	// NotExportable: the key's attributes or the partition's policy forbid
	// that it leaves the token, even wrapped.
	NotExportable Reason = "NOT_EXPORTABLE"
	// AlgorithmUnsupported: the token cannot do this algorithm or key size.
	AlgorithmUnsupported Reason = "ALGORITHM_UNSUPPORTED"
	// StorageFull: no room for another object or session object.
	StorageFull Reason = "STORAGE_FULL"
	// NotFound: no object or token of that name.
	NotFound Reason = "NOT_FOUND"
	// AlreadyExists: the ID belongs to another object.
	AlreadyExists Reason = "ALREADY_EXISTS"
	// NotPermitted: the role or a partition policy does not allow the call.
	NotPermitted Reason = "NOT_PERMITTED"
	// Invalid: the call itself is wrong.
	Invalid Reason = "INVALID"
	// Misconfigured: the plugin's settings are wrong, for example the path of
	// the vendor library.
	Misconfigured Reason = "MISCONFIGURED"
	// Corrupt: an answer of the device or the plugin contradicts itself.
	Corrupt Reason = "CORRUPT"
	// Internal: anything else; the code says what the device answered.
	Internal Reason = "INTERNAL"
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{
		PINIncorrect, PINLocked, PINExpired, PINMissing, LoginUnclear, TokenGone, Busy, Timeout,
		NotExportable, AlgorithmUnsupported, StorageFull, NotFound, AlreadyExists,
		NotPermitted, Invalid, Misconfigured, Corrupt, Internal,
	}
}

// Error makes a Reason usable as the target of errors.Is.
func (r Reason) Error() string { return "hsm: " + string(r) }

// NeedsOperator reports that repeating the login could only do harm: a person
// has to change something first.
func (r Reason) NeedsOperator() bool {
	switch r {
	case PINIncorrect, PINLocked, PINExpired, PINMissing, LoginUnclear:
		return true
	default:
		return false
	}
}

// Error is a failure of a token.
type Error struct {
	Reason Reason
	// Code is the device's own answer by its name, such as
	// "CKR_PIN_INCORRECT"; empty when the device was not asked.
	Code string
	// Detail says what was being done and what to do next, in lower case and
	// without a final dot.
	Detail string
}

// Errorf makes an Error without a device code.
func Errorf(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	switch {
	case e.Code == "":
		return e.Detail
	case e.Detail == "":
		return e.Code
	default:
		return e.Detail + " (" + e.Code + ")"
	}
}

// Is makes errors.Is(err, hsm.NotFound) work.
func (e *Error) Is(target error) bool {
	reason, ok := target.(Reason)
	return ok && e.Reason == reason
}

// ReasonOf returns the Reason of the first [*Error] in err's chain, and Internal
// for any other error.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return Internal
}
