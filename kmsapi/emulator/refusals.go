package emulator

import (
	"net/http"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// Refusals with the codes, statuses and sentences of the KMS documentation
// ("Sample responses"). The README lists those that it leaves open.
var (
	errKeyNotFound = &wire.Error{Status: http.StatusNotFound, Code: "Forbidden.KeyNotFound",
		Message: "The specified Key is not found."}
	errVersionNotFound = &wire.Error{Status: http.StatusNotFound, Code: "Forbidden.KeyVersionNotFound",
		Message: "The specified KeyVersion is not found."}
	errAliasNotFound = &wire.Error{Status: http.StatusNotFound, Code: "Forbidden.AliasNotFound",
		Message: "The specified Alias is not found."}
	errInstanceNotFound = &wire.Error{Status: http.StatusForbidden, Code: "Forbidden.DKMSInstanceNotFound",
		Message: "The specified DKMS instance is not found."}

	errAliasExists = &wire.Error{Status: http.StatusBadRequest, Code: "AliasAlreadyExists",
		Message: "The specified Alias already exists."}
	errAliasUnsupported = &wire.Error{Status: http.StatusBadRequest, Code: "Unsupported.Alias",
		Message: "This api does not accept an alias."}
	errOrigin = &wire.Error{Status: http.StatusBadRequest, Code: "Unsupported.Origin",
		Message: "This key origin is not valid for this api"}

	errKeyMaterial = &wire.Error{Status: http.StatusBadRequest, Code: "InvalidKeyMaterial",
		Message: "key material is invalid"}
	errImportToken = &wire.Error{Status: http.StatusBadRequest, Code: "InvalidImportToken",
		Message: "import token is invalid"}
	errImportTokenExpired = &wire.Error{Status: http.StatusBadRequest, Code: "ExpiredImportToken",
		Message: "import token is expired"}

	errOpened = &wire.Error{Status: http.StatusBadRequest, Code: "Forbidden.Opened",
		Message: "The service is already opened."}
	errAccessKey = &wire.Error{Status: http.StatusForbidden, Code: "Forbidden.AccessKey",
		Message: "This AccessKey is not enabled."}

	errDryRun = &wire.Error{Status: http.StatusBadRequest, Code: "DryRunOperationError",
		Message: "The request would have succeeded, but the DryRun parameter is set."}
	errLimitExceeded = &wire.Error{Status: http.StatusBadRequest, Code: "Rejected.LimitExceeded",
		Message: "The request was rejected because a resource limit is exceeded."}
)
