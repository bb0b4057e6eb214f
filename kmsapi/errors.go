package kmsapi

import (
	"cmp"
	"fmt"
	"time"
)

// Error is a failure of a call of KMS or, through [RPC], of another service: an
// answer of the service (Status is not 0) or no usable answer at all (Status is
// 0, Cause says why). It never contains a parameter of the request, so it can be
// logged.
type Error struct {
	Service   string // "RAM" or "STS"; empty for KMS
	Operation string // for example "CreateKey"
	Code      string // the service's code, such as "Rejected.Disabled"; empty without one
	Status    int    // HTTP status; 0 when no answer arrived
	Message   string // the service's sentence
	RequestID string
	Stage     Stage // how far the call came
	// RetryAfter is how long the service wants to be left alone, 0 when it did
	// not say.
	RetryAfter time.Duration
	// EarlierUnknown: the call had several attempts, and an earlier one ended
	// without a known outcome.
	EarlierUnknown bool
	// Cause is set when no answer arrived, or none that could be read: a
	// network error, context.Canceled, context.DeadlineExceeded.
	Cause error
}

func (e *Error) Error() string {
	switch {
	case e.Stage == StageLocal:
		return fmt.Sprintf("%s: not sent to %s: %v", e.Operation, cmp.Or(e.Service, "KMS"), e.Cause)
	case e.Status == 0:
		return fmt.Sprintf("%s: no answer from %s: %v", e.Operation, cmp.Or(e.Service, "KMS"), e.Cause)
	case e.Code == "":
		return fmt.Sprintf("%s: unreadable answer from %s (HTTP %d): %v", e.Operation, cmp.Or(e.Service, "KMS"), e.Status, e.Cause)
	default:
		return fmt.Sprintf("%s: %s: %s (HTTP %d, request %s)", e.Operation, e.Code, e.Message, e.Status, e.RequestID)
	}
}

// Unwrap returns the cause, so that errors.Is finds context.Canceled and the
// like.
func (e *Error) Unwrap() error { return e.Cause }

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
	CodeShareLimitExceeded = "Rejected.ShareQuotaExceedLimit"
	CodeThrottled          = "Rejected.Throttling"
	CodeInvalidParameter   = "InvalidParameter"
	CodeInvalidKeyMaterial = "InvalidKeyMaterial"
	CodeExpiredImportToken = "ExpiredImportToken"
	// CodeWithheld stands for a code that repeated a secret of the request.
	CodeWithheld = "Withheld"
)
