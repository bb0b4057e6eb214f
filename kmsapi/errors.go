package kmsapi

import (
	"fmt"
	"net/http"
)

// Error is a failure of a KMS call: an answer of the service (Status is not 0)
// or no usable answer at all (Status is 0, Cause says why). It never contains a
// parameter of the request, so it can be logged.
type Error struct {
	Operation string // for example "CreateKey"
	Code      string // the service's code, such as "Rejected.Disabled"; empty without one
	Status    int    // HTTP status; 0 when no answer arrived
	Message   string // the service's sentence
	RequestID string
	// Cause is set when no answer arrived, or none that could be read: a
	// network error, context.Canceled, context.DeadlineExceeded.
	Cause error
}

func (e *Error) Error() string {
	switch {
	case e.Status == 0:
		return fmt.Sprintf("%s: no answer from KMS: %v", e.Operation, e.Cause)
	case e.Code == "":
		return fmt.Sprintf("%s: unreadable answer from KMS (HTTP %d): %v", e.Operation, e.Status, e.Cause)
	default:
		return fmt.Sprintf("%s: %s: %s (HTTP %d, request %s)", e.Operation, e.Code, e.Message, e.Status, e.RequestID)
	}
}

// Unwrap returns the cause, so that errors.Is finds context.Canceled and the
// like.
func (e *Error) Unwrap() error { return e.Cause }

// Throttled reports that the service refused for its quotas. Both spellings
// count: KMS's own 429 Rejected.Throttling and the gateway's 400 Throttling,
// Throttling.User and Throttling.Api.
func (e *Error) Throttled() bool {
	switch e.Code {
	case "Rejected.Throttling", "Throttling", "Throttling.User", "Throttling.Api":
		return true
	default:
		return e.Status == http.StatusTooManyRequests
	}
}

// OutcomeUnknown reports that the service may have done what was asked although
// the call failed. Only a readable refusal below 500 rules that out.
func (e *Error) OutcomeUnknown() bool {
	return e.Code == "" || e.Status >= http.StatusInternalServerError
}

// Codes that kmsbroker acts on. "Not found" is spelled Forbidden with status
// 404: never classify by the prefix.
const (
	CodeKeyNotFound        = "Forbidden.KeyNotFound"
	CodeAliasNotFound      = "Forbidden.AliasNotFound"
	CodeAliasExists        = "AliasAlreadyExists"
	CodeNoPermission       = "Forbidden.NoPermission"
	CodeDisabled           = "Rejected.Disabled"
	CodePendingDeletion    = "Rejected.PendingDeletion"
	CodePendingImport      = "Rejected.PendingImport"
	CodeStateModified      = "Rejected.StateModifiedFailed"
	CodeLimitExceeded      = "Rejected.LimitExceeded"
	CodeThrottled          = "Rejected.Throttling"
	CodeInvalidParameter   = "InvalidParameter"
	CodeInvalidKeyMaterial = "InvalidKeyMaterial"
	CodeExpiredImportToken = "ExpiredImportToken"
)
