package wire

import (
	"fmt"
	"net/http"
)

// Error is a refusal as the protocol spells it. Message goes to the client and
// holds no parameter value, with one exception that [VerifierConfig] names.
type Error struct {
	Status  int    // HTTP status
	Code    string // "InvalidParameter"
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// MissingParameter says that a required parameter was not sent.
func MissingParameter(name string) *Error {
	return &Error{http.StatusBadRequest, "MissingParameter",
		fmt.Sprintf("The parameter %q is needed but not provided.", name)}
}

// InvalidParameter says that a parameter has a value which it cannot have.
func InvalidParameter(name string) *Error {
	return &Error{http.StatusBadRequest, "InvalidParameter",
		fmt.Sprintf("The specified parameter %q is not valid.", name)}
}

// Refusals that the server around this package makes.
var (
	ErrUnknownAction = &Error{http.StatusNotFound, "InvalidAction.NotFound",
		"Specified api is not found, please check your url and method."}
	ErrUnknownVersion = &Error{http.StatusBadRequest, "InvalidVersion",
		"Specified parameter Version is not valid."}
	ErrUnknownAccessKey = &Error{http.StatusNotFound, "InvalidAccessKeyId.NotFound",
		"Specified access key is not found."}
	ErrInactiveAccessKey = &Error{http.StatusBadRequest, "InvalidAccessKeyId.Inactive",
		"Specified access key is disabled."}
	ErrMissingSecurityToken = &Error{http.StatusBadRequest, "MissingSecurityToken",
		"SecurityToken is mandatory for this action."}
	ErrMalformedToken = &Error{http.StatusBadRequest, "InvalidSecurityToken.Malformed",
		"Specified SecurityToken is malformed."}
	ErrExpiredToken = &Error{http.StatusBadRequest, "InvalidSecurityToken.Expired",
		"Specified SecurityToken is expired."}
	ErrTokenMismatch = &Error{http.StatusBadRequest, "InvalidSecurityToken.MismatchWithAccessKey",
		"Specified SecurityToken mismatch with the AccessKey."}
	ErrUnsupported = &Error{http.StatusBadRequest, "UnsupportedOperation",
		"This action is not supported."}
	ErrUnknownRegion = &Error{http.StatusNotFound, "InvalidRegionId.NotFound",
		"The specified RegionId does not exist."}
	ErrThrottled = &Error{http.StatusTooManyRequests, "Rejected.Throttling",
		"QPS Limit Exceeded"}
	ErrInternal = &Error{http.StatusInternalServerError, "InternalFailure",
		"The request processing has failed due to some unknown error."}
)

// Refusals of this package. The code and status of errTooLarge are ours: the
// service documents neither.
var (
	errMethod = &Error{http.StatusForbidden, "UnsupportedHTTPMethod",
		"This http method is not supported."}
	errTooLarge = &Error{http.StatusRequestEntityTooLarge, "RequestEntityTooLarge",
		"The request is larger than the service accepts."}
	errParse = &Error{http.StatusBadRequest, "ParseRequestParameterException",
		"The parameters of the request cannot be read."}
	errDuplicate = &Error{http.StatusBadRequest, "ParseRequestParameterException",
		"A parameter of the request is given more than once."}
	errIncomplete = &Error{http.StatusBadRequest, "IncompleteSignature",
		"The request signature does not conform to Aliyun standards."}
	errSignatureMethod = &Error{http.StatusBadRequest, "InvalidSignatureMethod",
		"Specified signature method is not valid."}
	errTimeFormat = &Error{http.StatusBadRequest, "InvalidTimeStamp.Format",
		"Specified time stamp or date value is not well formatted."}
	errTimeExpired = &Error{http.StatusBadRequest, "InvalidTimeStamp.Expired",
		"Specified time stamp or date value is expired."}
	errNonceUsed = &Error{http.StatusBadRequest, "SignatureNonceUsed",
		"Specified signature nonce was used already."}
)

const (
	codeSignature    = "SignatureDoesNotMatch"
	messageSignature = "Specified signature is not matched with our calculation."
)
