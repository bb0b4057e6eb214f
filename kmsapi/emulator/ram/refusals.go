package ram

import (
	"net/http"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// Refusals with the codes and statuses of the RAM documentation's "Error
// messages".
var (
	errNoPermission = refusal(http.StatusForbidden, "NoPermission", "You are not authorized to do this action.")

	errNoUser          = refusal(http.StatusNotFound, "EntityNotExist.User", "The user does not exist.")
	errNoAccessKey     = refusal(http.StatusNotFound, "EntityNotExist.User.AccessKey", "The access key does not exist.")
	errNoUserPolicy    = refusal(http.StatusNotFound, "EntityNotExist.User.Policy", "The policy is not attached to the user.")
	errNoPolicy        = refusal(http.StatusNotFound, "EntityNotExist.Policy", "The policy does not exist.")
	errNoPolicyVersion = refusal(http.StatusNotFound, "EntityNotExist.Policy.Version", "The policy version does not exist.")
	errNoRole          = refusal(http.StatusNotFound, "EntityNotExist.Role", "The role does not exist.")
	errNoRolePolicy    = refusal(http.StatusNotFound, "EntityNotExist.Role.Policy", "The policy is not attached to the role.")

	errUserExists       = refusal(http.StatusConflict, "EntityAlreadyExists.User", "The user does already EXIST.")
	errUserPolicyExists = refusal(http.StatusConflict, "EntityAlreadyExists.User.Policy", "The policy is already attached to the user.")
	errPolicyExists     = refusal(http.StatusConflict, "EntityAlreadyExists.Policy", "The policy does already exist.")
	errRoleExists       = refusal(http.StatusConflict, "EntityAlreadyExists.Role", "The role does already exist.")
	errRolePolicyExists = refusal(http.StatusConflict, "EntityAlreadyExists.Role.Policy", "The policy is already attached to the role.")

	errUserHasKeys       = refusal(http.StatusConflict, "DeleteConflict.User.AccessKey", "The user has access keys.")
	errUserHasPolicies   = refusal(http.StatusConflict, "DeleteConflict.User.Policy", "The user has policies attached.")
	errPolicyHasUsers    = refusal(http.StatusConflict, "DeleteConflict.Policy.User", "The policy is attached to a user.")
	errPolicyHasRoles    = refusal(http.StatusConflict, "DeleteConflict.Policy.Role", "The policy is attached to a role.")
	errPolicyHasVersions = refusal(http.StatusConflict, "DeleteConflict.Policy.Version", "The policy has versions besides the default one.")
	errVersionIsDefault  = refusal(http.StatusConflict, "DeleteConflict.Policy.Version.Default", "The version is the default one.")
	errRoleHasPolicies   = refusal(http.StatusConflict, "DeleteConflict.Role.Policy", "The role has policies attached.")

	errUserLimit       = refusal(http.StatusConflict, "LimitExceeded.User", "The number of users is at its limit.")
	errAccessKeyLimit  = refusal(http.StatusConflict, "LimitExceeded.User.AccessKey", "The number of access keys of the user is at its limit.")
	errUserPolicyLimit = refusal(http.StatusConflict, "LimitExceeded.User.Policy", "The number of policies of the user is at its limit.")
	errRoleLimit       = refusal(http.StatusConflict, "LimitExceeded.Role", "The number of roles is at its limit.")
	errRolePolicyLimit = refusal(http.StatusConflict, "LimitExceeded.Role.Policy", "The number of policies of the role is at its limit.")
	errPolicyLimit     = refusal(http.StatusConflict, "LimitExceeded.Policy", "The number of policies is at its limit.")
	errVersionLimit    = refusal(http.StatusConflict, "LimitExceeded.Policy.Version", "The number of versions of the policy is at its limit.")

	errDocument       = refusal(http.StatusBadRequest, "MalformedPolicyDocument", "The policy document is malformed.")
	errDocumentLength = refusal(http.StatusBadRequest, "InvalidParameter.PolicyDocument.Length", "The policy document is too long.")
	errPolicyType     = refusal(http.StatusBadRequest, "InvalidParameter.PolicyType", "The policy type is neither System nor Custom.")
	errOIDCToken      = refusal(http.StatusBadRequest, "AuthenticationFail.OIDCToken.Invalid", "This OIDC token is invalid.")
	errOIDCExpired    = refusal(http.StatusBadRequest, "AuthenticationFail.OIDCToken.Expired", "This OIDC token is expired.")
)

// Limits of an account ("Limits" of the RAM documentation).
const (
	maxUsers           = 1000
	maxRoles           = 1000
	maxPolicies        = 1500
	maxVersions        = 5
	maxAccessKeys      = 2
	maxCustomAttached  = 10
	maxSystemAttached  = 20
	maxDocument        = 6144 // characters
	maxComment         = 128  // characters, of Comments and DisplayName
	maxDescription     = 1024
	defaultListedItems = 100
	maxListedItems     = 1000
)

func refusal(status int, code, message string) *wire.Error {
	return &wire.Error{Status: status, Code: code, Message: message}
}
