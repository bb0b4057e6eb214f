package failure

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// From turns any error into a failure. Failures stay as they are; what tokens
// and KMS report is classified; a context's end becomes Unavailable; the rest
// is Internal.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*kmsapi.Error](err); ok {
		return fromKMS(e, err)
	}
	if e, ok := errors.AsType[*hsm.Error](err); ok {
		return fromHSM(e, err)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Kind: Unavailable, Reason: "DEADLINE", Message: "the deadline passed: " + err.Error(), Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Kind: Unavailable, Reason: "CANCELED", Message: "the call was cancelled: " + err.Error(), Err: err}
	}
	return &Error{Kind: Internal, Reason: "INTERNAL", Message: err.Error(), Err: err}
}

// hsmKinds says what each reason of a token means for a caller of the broker.
var hsmKinds = map[hsm.Reason]struct {
	kind Kind
	hint string
}{
	hsm.PINIncorrect:         {WrongState, "the PIN is not tried again; correct the PIN file, then `kmsbrokerctl backend retry-login`, and `kmsbrokerctl backend login` where the PIN is entered"},
	hsm.PINLocked:            {WrongState, "the HSM's security officer must unlock the role, then `kmsbrokerctl backend retry-login`"},
	hsm.PINExpired:           {WrongState, "change the role's PIN on the HSM and in the PIN file, then `kmsbrokerctl backend retry-login`"},
	hsm.PINMissing:           {WrongState, "give the role a PIN on the HSM and the backend a pin_file, then `kmsbrokerctl backend retry-login`"},
	hsm.LoginUnclear:         {WrongState, "check the PIN and the HSM's count of failed logins, then `kmsbrokerctl backend retry-login`"},
	hsm.TokenGone:            {Unavailable, "`kmsbrokerctl backend show` tells how the backend is"},
	hsm.Busy:                 {Unavailable, "try again later"},
	hsm.Timeout:              {Unavailable, "`kmsbrokerctl backend show` tells how the backend is"},
	hsm.NotExportable:        {WrongState, "only a key that was generated extractable, on a partition that allows secret key wrapping, can be imported"},
	hsm.AlgorithmUnsupported: {Invalid, "`kmsbrokerctl backend show` lists the wrapping algorithms of the token"},
	hsm.StorageFull:          {WrongState, "remove keys from the token or enlarge the partition"},
	hsm.NotFound:             {NotFound, ""},
	hsm.AlreadyExists:        {WrongState, ""},
	hsm.NotPermitted:         {WrongState, "check the backend's role and the partition's policies"},
	hsm.Invalid:              {Invalid, ""},
	hsm.Misconfigured:        {WrongState, "correct the backend's section of the configuration, or the files that it names"},
	hsm.Corrupt:              {Corrupt, ""},
	hsm.Internal:             {Internal, ""},
}

func fromHSM(e *hsm.Error, err error) *Error {
	meaning := hsmKinds[e.Reason]
	return &Error{
		Kind: meaning.kind, Reason: string(e.Reason),
		Message: err.Error(), Hint: meaning.hint, Err: err,
	}
}

// kmsKinds names the codes whose meaning their HTTP status does not give away.
var kmsKinds = map[string]struct {
	kind Kind
	hint string
}{
	kmsapi.CodeKeyNotFound:        {NotFound, "the CMK was deleted, or belongs to another region or account"},
	kmsapi.CodeAliasNotFound:      {NotFound, ""},
	kmsapi.CodeAliasExists:        {WrongState, "choose another alias, or delete the old one"},
	kmsapi.CodeNoPermission:       {Unavailable, "the broker's own RAM user lacks a permission for this CMK"},
	kmsapi.CodeDisabled:           {WrongState, "`kmsbrokerctl key enable` enables the CMK"},
	kmsapi.CodePendingDeletion:    {WrongState, "`kmsbrokerctl key cancel-deletion` keeps the CMK"},
	kmsapi.CodePendingImport:      {WrongState, "`kmsbrokerctl key reimport` brings the key material back"},
	kmsapi.CodeLimitExceeded:      {WrongState, "the account's quota of CMKs is used up; more need a KMS instance"},
	kmsapi.CodeInvalidKeyMaterial: {WrongState, "a CMK accepts only the material it was first given"},
	kmsapi.CodeExpiredImportToken: {WrongState, "repeat the command: it fetches a new token"},
}

func fromKMS(e *kmsapi.Error, err error) *Error {
	f := &Error{Reason: "KMS", Message: err.Error(), RequestID: e.RequestID, Err: err}
	if e.Code != "" {
		f.Reason = "KMS_" + e.Code
	}
	if meaning, ok := kmsKinds[e.Code]; ok {
		f.Kind, f.Hint = meaning.kind, meaning.hint
		return f
	}
	switch {
	case e.Throttled():
		f.Kind, f.Hint = Throttled, "the account's quota for this region is used up for the moment"
	case e.Status == 0:
		f.Kind, f.Hint = Unavailable, "check the endpoint, DNS and the network; `kmsbrokerctl status` shows the endpoint"
	case e.Code == "":
		f.Kind = Corrupt
		if e.Status >= http.StatusMultipleChoices {
			f.Kind = Unavailable
		}
	case e.Status >= http.StatusInternalServerError:
		f.Kind = Unavailable
	case e.Status == http.StatusForbidden, isCredentialCode(e.Code):
		// It is the broker's identity that was refused, not the caller's.
		f.Kind, f.Hint = Unavailable, "check the broker's access key and its RAM policy"
	case e.Status == http.StatusNotFound:
		f.Kind = NotFound
	case e.Status == http.StatusConflict:
		f.Kind = WrongState
	default:
		f.Kind = Invalid
	}
	return f
}

// credentialCodes begin the codes that refuse whoever signed a call, or the clock
// he signed it by.
var credentialCodes = []string{
	"InvalidAccessKeyId", "InvalidSecurityToken", "MissingSecurityToken", "SignatureDoesNotMatch", "IncompleteSignature",
	"SignatureNonceUsed", "InvalidTimeStamp", "IllegalTimestamp",
}

func isCredentialCode(code string) bool {
	return slices.ContainsFunc(credentialCodes, func(prefix string) bool { return strings.HasPrefix(code, prefix) })
}
