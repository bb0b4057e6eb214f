// Package identity gives the daemon temporary credentials of Alibaba Cloud: those
// of the RAM role of an ECS instance, and those for which STS exchanges an OIDC
// token or other credentials. They are fetched when they are first asked for and
// again ahead of their expiry. Permanent AccessKeys come from
// [kmsapi.CredentialsFile].
//
// Alibaba's own library, github.com/aliyun/credentials-go, does the same but
// honours no context, writes its cache without a lock, puts whole answers of the
// services into its errors, takes settings from a dozen environment variables and
// always speaks to fixed addresses. All that is left without it is four small
// requests.
package identity

import (
	"fmt"
	"regexp"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Error says that a source has no credentials to give. It never contains a
// secret.
type Error struct {
	Source string // "ECS RAM role", "OIDC" or "role"
	Tried  string // the last thing that was done
	Hint   string // what an administrator can do; may be empty
	Err    error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("credentials of %s: %s: %v", e.Source, e.Tried, e.Err)
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	return text
}

// Unwrap returns the cause; for a refusal of STS it is a [*kmsapi.Error].
func (e *Error) Unwrap() error { return e.Err }

// session is what a source fetches. The credentials are in a function because fmt
// ignores the methods of unexported fields and would show them.
type session struct {
	credentials func() kmsapi.Credentials
	expires     time.Time
}

// newSession checks what a service sent. Its values are not quoted.
func newSession(credentials kmsapi.Credentials, expiration string) (session, error) {
	if credentials.AccessKeyID == "" || credentials.AccessKeySecret == "" || credentials.SecurityToken == "" {
		return session{}, errIncomplete
	}
	expires, err := time.Parse(kmsapi.TimeLayout, expiration)
	if err != nil {
		return session{}, errIncomplete
	}
	return session{func() kmsapi.Credentials { return credentials }, expires}, nil
}

var errIncomplete = fmt.Errorf("the answer lacks an AccessKey, a token or an Expiration of the form %s", kmsapi.TimeLayout)

// Names as RAM and STS take them (documentation of CreateRole and AssumeRole).
var (
	roleName    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	roleARN     = regexp.MustCompile(`^acs:ram::[0-9]{1,32}:role/[A-Za-z0-9._-]{1,64}$`)
	providerARN = regexp.MustCompile(`^acs:ram::[0-9]{1,32}:oidc-provider/[A-Za-z0-9._-]{1,128}$`)
	sessionName = regexp.MustCompile(`^[A-Za-z0-9.@_-]{2,64}$`)
)
