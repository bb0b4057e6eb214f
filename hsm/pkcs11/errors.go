package pkcs11

import (
	"errors"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// Codes that the binding has no constant for.
const (
	ckrActionProhibited = 0x1B // PKCS#11 2.40 errata 01

	// Thales, from the header of the Luna client.
	ckrContainerHandleInvalid  = 0x80000005
	ckrTooManyContainers       = 0x80000006
	ckrUserLockedOut           = 0x80000007
	ckrUserNotAuthorized       = 0x8000001A
	ckrMaxObjectCountExceeded  = 0x8000001B
	ckrSOLoginFailureThreshold = 0x8000001C
	ckrUnableToConnect         = 0x8000001F
	ckrPartitionDisabled       = 0x80000020
	ckrSPTimeout               = 0x80000023
	ckrTimeout                 = 0x80000024
	ckrHSMStorageFull          = 0x8000002A
	ckrDeviceTimeout           = 0x8000002B
	ckrContainerStorageFull    = 0x8000002C
	ckrOperationNotAllowed     = 0x80000030
	ckrLicenseCapacityExceeded = 0x80000031
	ckrAgain                   = 0x80000041
	ckrSTCSessionInvalid       = 0x80000053
	ckrSTCNoChannel            = 0x80000056
	ckrObjectAlreadyExists     = 0x8000006F
	ckrHSMTampered             = 0x80000076
	ckrConfigFailsDependencies = 0x8000007D
	ckrHSMRestartRequired      = 0x8000008D
	ckrObjectReadOnly          = 0x80000114
	ckrKeyNotActive            = 0x80000136
	ckrBusy                    = 0x80001604
)

// reasonOf says what a caller can do about a return code. Codes that mean
// something else in one call only are treated where that call is made.
func reasonOf(code uint) hsm.Reason {
	switch code {
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE:
		return hsm.PINIncorrect
	case p11.CKR_PIN_LOCKED, ckrUserLockedOut, ckrSOLoginFailureThreshold:
		return hsm.PINLocked
	case p11.CKR_PIN_EXPIRED:
		return hsm.PINExpired
	case p11.CKR_USER_PIN_NOT_INITIALIZED:
		return hsm.PINMissing

	// What follows until the next return is cured by a new C_Initialize in a
	// new process, or by the link coming back. A login that was lost belongs
	// here because the engine never logs in twice, and so does a handle that is
	// bad although it was looked up twice.
	case p11.CKR_GENERAL_ERROR, p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_MEMORY, p11.CKR_DEVICE_REMOVED,
		p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_SLOT_ID_INVALID,
		p11.CKR_CRYPTOKI_NOT_INITIALIZED, p11.CKR_USER_NOT_LOGGED_IN,
		p11.CKR_SESSION_CLOSED, p11.CKR_SESSION_HANDLE_INVALID,
		p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_KEY_HANDLE_INVALID, p11.CKR_WRAPPING_KEY_HANDLE_INVALID,
		ckrContainerHandleInvalid, ckrUnableToConnect, ckrSPTimeout, ckrTimeout, ckrDeviceTimeout,
		ckrSTCSessionInvalid, ckrSTCNoChannel, ckrHSMRestartRequired:
		return hsm.TokenGone

	case p11.CKR_SESSION_COUNT, ckrTooManyContainers, ckrAgain, ckrBusy:
		return hsm.Busy
	case p11.CKR_KEY_NOT_WRAPPABLE, p11.CKR_KEY_UNEXTRACTABLE:
		return hsm.NotExportable
	case p11.CKR_MECHANISM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_FUNCTION_NOT_SUPPORTED,
		p11.CKR_KEY_SIZE_RANGE, p11.CKR_WRAPPING_KEY_SIZE_RANGE:
		return hsm.AlgorithmUnsupported
	case ckrMaxObjectCountExceeded, ckrHSMStorageFull, ckrContainerStorageFull, ckrLicenseCapacityExceeded:
		return hsm.StorageFull
	case ckrObjectAlreadyExists:
		return hsm.AlreadyExists
	case p11.CKR_KEY_FUNCTION_NOT_PERMITTED, p11.CKR_ATTRIBUTE_READ_ONLY, p11.CKR_TOKEN_WRITE_PROTECTED,
		p11.CKR_USER_TYPE_INVALID, p11.CKR_USER_TOO_MANY_TYPES,
		p11.CKR_USER_ALREADY_LOGGED_IN, p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN,
		ckrActionProhibited, ckrUserNotAuthorized, ckrPartitionDisabled, ckrOperationNotAllowed,
		ckrHSMTampered, ckrConfigFailsDependencies, ckrObjectReadOnly, ckrKeyNotActive:
		return hsm.NotPermitted
	case p11.CKR_ARGUMENTS_BAD, p11.CKR_ATTRIBUTE_SENSITIVE, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID,
		p11.CKR_TEMPLATE_INCOMPLETE, p11.CKR_TEMPLATE_INCONSISTENT, p11.CKR_KEY_TYPE_INCONSISTENT,
		p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT:
		return hsm.Invalid
	default:
		return hsm.Internal
	}
}

// advice says what to do next where the reason alone leaves it open.
func advice(reason hsm.Reason) string {
	switch reason {
	case hsm.PINIncorrect:
		return "; the PIN was tried once and is not tried again, because devices lock after a few wrong attempts: correct it first"
	case hsm.PINLocked:
		return "; the device has locked the role: a security officer must reset it"
	case hsm.PINExpired:
		return "; change the PIN with the vendor's tool, then configure the new one"
	case hsm.PINMissing:
		return "; initialise the role with the vendor's tool"
	default:
		return ""
	}
}

// deviceError turns what the binding returned into an *hsm.Error. what says
// which call failed, in words.
func deviceError(err error, what string, args ...any) *hsm.Error {
	if e, ok := errors.AsType[*hsm.Error](err); ok {
		return e
	}
	detail := fmt.Sprintf(what, args...)
	code, ok := codeOf(err)
	if !ok {
		return hsm.Errorf(hsm.Internal, "%s: %v", detail, err)
	}
	reason := reasonOf(code)
	return &hsm.Error{Reason: reason, Code: codeName(code), Detail: detail + advice(reason)}
}

// hint adds what a device may mean by its code.
func hint(err error, hints map[string]string) error {
	e, ok := errors.AsType[*hsm.Error](err)
	if !ok || hints[e.Code] == "" {
		return err
	}
	return &hsm.Error{Reason: e.Reason, Code: e.Code, Detail: e.Detail + "; " + hints[e.Code]}
}

// codeOf returns the CKR in err.
func codeOf(err error) (uint, bool) {
	code, ok := errors.AsType[p11.Error](err)
	return uint(code), ok
}

// hasCode reports whether err is one of the return codes.
func hasCode(err error, codes ...uint) bool {
	got, ok := codeOf(err)
	return ok && slices.Contains(codes, got)
}

// codeIn returns the device's code of an *hsm.Error, and "" for other errors.
func codeIn(err error) string {
	if e, ok := errors.AsType[*hsm.Error](err); ok {
		return e.Code
	}
	return ""
}

// vanished reports whether the handle of an object went bad after the object
// was found or made: it was destroyed, or the login was lost.
func vanished(err error) bool {
	switch codeIn(err) {
	case codeName(p11.CKR_OBJECT_HANDLE_INVALID), codeName(p11.CKR_KEY_HANDLE_INVALID),
		codeName(p11.CKR_WRAPPING_KEY_HANDLE_INVALID):
		return true
	default:
		return false
	}
}

// codeName returns the name of a return code.
func codeName(code uint) string { return cryptoki.RV(code).String() }
