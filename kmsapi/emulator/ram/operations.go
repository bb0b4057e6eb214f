package ram

import (
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// operation is one action of RAM or STS.
type operation struct {
	run      func(*call) (any, error)
	changes  bool
	ownUser  bool     // UserName is the caller when it is not given
	on       []scope  // the resources on which the caller needs permission
	required []string // parameters, in the order in which they are missed
}

// scope is a kind of resource, which a parameter names.
type scope int

const (
	onUser scope = iota
	onPolicy
	onRole
	onUsers // all of them
	onPolicies
	onRoles
)

var operations = map[string]operation{
	"CreateUser": {createUser, true, false, []scope{onUser}, []string{"UserName"}},
	"GetUser":    {getUser, false, true, []scope{onUser}, []string{"UserName"}},
	"UpdateUser": {updateUser, true, false, []scope{onUser}, []string{"UserName"}},
	"DeleteUser": {deleteUser, true, false, []scope{onUser}, []string{"UserName"}},
	"ListUsers":  {listUsers, false, false, []scope{onUsers}, nil},

	"CreateAccessKey":      {createAccessKey, true, true, []scope{onUser}, []string{"UserName"}},
	"ListAccessKeys":       {listAccessKeys, false, true, []scope{onUser}, []string{"UserName"}},
	"UpdateAccessKey":      {updateAccessKey, true, true, []scope{onUser}, []string{"UserName", "UserAccessKeyId", "Status"}},
	"DeleteAccessKey":      {deleteAccessKey, true, true, []scope{onUser}, []string{"UserName", "UserAccessKeyId"}},
	"GetAccessKeyLastUsed": {getAccessKeyLastUsed, false, true, []scope{onUser}, []string{"UserName", "UserAccessKeyId"}},

	"CreatePolicy":            {createPolicy, true, false, []scope{onPolicy}, []string{"PolicyName", "PolicyDocument"}},
	"GetPolicy":               {getPolicy, false, false, []scope{onPolicy}, []string{"PolicyName", "PolicyType"}},
	"ListPolicies":            {listPolicies, false, false, []scope{onPolicies}, nil},
	"DeletePolicy":            {deletePolicy, true, false, []scope{onPolicy}, []string{"PolicyName"}},
	"CreatePolicyVersion":     {createPolicyVersion, true, false, []scope{onPolicy}, []string{"PolicyName", "PolicyDocument"}},
	"GetPolicyVersion":        {getPolicyVersion, false, false, []scope{onPolicy}, []string{"PolicyName", "PolicyType", "VersionId"}},
	"ListPolicyVersions":      {listPolicyVersions, false, false, []scope{onPolicy}, []string{"PolicyName", "PolicyType"}},
	"SetDefaultPolicyVersion": {setDefaultPolicyVersion, true, false, []scope{onPolicy}, []string{"PolicyName", "VersionId"}},
	"DeletePolicyVersion":     {deletePolicyVersion, true, false, []scope{onPolicy}, []string{"PolicyName", "VersionId"}},

	"AttachPolicyToUser":   {attachPolicyToUser, true, false, []scope{onPolicy, onUser}, []string{"PolicyType", "PolicyName", "UserName"}},
	"DetachPolicyFromUser": {detachPolicyFromUser, true, false, []scope{onPolicy, onUser}, []string{"PolicyType", "PolicyName", "UserName"}},
	"ListPoliciesForUser":  {listPoliciesForUser, false, false, []scope{onUser}, []string{"UserName"}},
	"AttachPolicyToRole":   {attachPolicyToRole, true, false, []scope{onPolicy, onRole}, []string{"PolicyType", "PolicyName", "RoleName"}},
	"DetachPolicyFromRole": {detachPolicyFromRole, true, false, []scope{onPolicy, onRole}, []string{"PolicyType", "PolicyName", "RoleName"}},
	"ListPoliciesForRole":  {listPoliciesForRole, false, false, []scope{onRole}, []string{"RoleName"}},

	"CreateRole": {createRole, true, false, []scope{onRole}, []string{"RoleName", "AssumeRolePolicyDocument"}},
	"GetRole":    {getRole, false, false, []scope{onRole}, []string{"RoleName"}},
	"UpdateRole": {updateRole, true, false, []scope{onRole}, []string{"RoleName"}},
	"DeleteRole": {deleteRole, true, false, []scope{onRole}, []string{"RoleName"}},
	"ListRoles":  {listRoles, false, false, []scope{onRoles}, nil},
}

// stsOperations judge for themselves who may call them.
var stsOperations = map[string]operation{
	"AssumeRole":         {assumeRole, false, false, nil, []string{"RoleArn", "RoleSessionName"}},
	"AssumeRoleWithOIDC": {assumeRoleWithOIDC, false, false, nil, []string{"RoleArn", "RoleSessionName", "OIDCProviderArn", "OIDCToken"}},
	"GetCallerIdentity":  {getCallerIdentity, false, false, nil, nil},
}

// call is one request on its way through an operation.
type call struct {
	account *Account
	who     Identity
	request *wire.Request
	params  map[string]string
	state   *state // what an operation that changes something changes
	now     time.Time
}

// authorize asks the policies of the caller about every resource of an operation.
func (c *call) authorize(op operation) error {
	for _, on := range op.on {
		if c.who.Evaluate(c.question("ram:"+c.request.Action, c.resource(on))) != policy.Allowed {
			return errNoPermission
		}
	}
	return nil
}

func (c *call) question(action, resource string) policy.Request {
	return policy.Request{Action: action, Resource: resource, Context: RequestContext(c.request, c.now)}
}

// RequestContext is what condition keys know of a request in every service.
func RequestContext(r *wire.Request, now time.Time) map[string]string {
	context := map[string]string{
		"acs:CurrentTime":     now.UTC().Format(time.RFC3339),
		"acs:SecureTransport": "false",
	}
	if r.Secure {
		context["acs:SecureTransport"] = "true"
	}
	if r.Source.IsValid() {
		context["acs:SourceIp"] = r.Source.String()
	}
	return context
}

func (c *call) resource(on scope) string {
	switch on {
	case onUser:
		return c.account.arn("user/" + c.params["UserName"])
	case onRole:
		return c.account.arn("role/" + c.params["RoleName"])
	case onUsers:
		return c.account.arn("user/*")
	case onPolicies:
		return c.account.arn("policy/*")
	case onRoles:
		return c.account.arn("role/*")
	case onPolicy:
	}
	if c.params["PolicyType"] == typeSystem {
		return "acs:ram::system:policy/" + c.params["PolicyName"]
	}
	return c.account.arn("policy/" + c.params["PolicyName"])
}
