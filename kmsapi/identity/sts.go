package identity

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/sts"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// STS says where the Security Token Service is.
type STS struct {
	Region string // "cn-hangzhou"
	// Endpoint as in [kmsapi.ClientConfig]; empty means the public one of the
	// region, sts.REGION.aliyuncs.com.
	Endpoint string
	RootCAs  *x509.CertPool // nil: the system's
}

func (s STS) dial(credentials kmsapi.CredentialSource) (*kmsapi.RPC, error) {
	return kmsapi.NewRPC(kmsapi.RPCConfig{
		Service: "STS", Region: s.Region, Endpoint: cmp.Or(s.Endpoint, "sts."+s.Region+".aliyuncs.com"),
		RootCAs: s.RootCAs, Credentials: credentials,
	})
}

// Session says how a role shall be assumed.
type Session struct {
	RoleARN string // "acs:ram::1234567890123456:role/kms"
	// Name appears in ActionTrail; empty means DefaultSessionName. 2 to 64 of
	// A-Z a-z 0-9 . @ - _.
	Name string
	// Duration of the credentials in whole seconds, from 15 minutes to what the
	// role allows; 0 means an hour.
	Duration time.Duration
}

// DefaultSessionName is the name of a session that was given none.
const DefaultSessionName = "kmsbroker"

// Limits of DurationSeconds (documentation of AssumeRole).
const (
	minDuration     = 15 * time.Minute
	maxDuration     = 12 * time.Hour
	defaultDuration = time.Hour
)

// complete fills in the defaults and reports what STS would refuse.
func (s Session) complete() (Session, error) {
	s.Name, s.Duration = cmp.Or(s.Name, DefaultSessionName), cmp.Or(s.Duration, defaultDuration)
	switch {
	case !roleARN.MatchString(s.RoleARN):
		return s, fmt.Errorf("role ARN %.200q is not of the form acs:ram::1234567890123456:role/NAME", s.RoleARN)
	case !sessionName.MatchString(s.Name):
		return s, fmt.Errorf("session name %.100q is not 2 to 64 of A-Z a-z 0-9 . @ - _", s.Name)
	case s.Duration < minDuration || s.Duration > maxDuration || s.Duration%time.Second != 0:
		return s, fmt.Errorf("session duration %v is not %v to %v in whole seconds", s.Duration, minDuration, maxDuration)
	}
	return s, nil
}

func (s Session) seconds() requests.Integer {
	return requests.NewInteger(int(s.Duration / time.Second))
}

// ofSTS reads the credentials of an answer.
func ofSTS(c sts.Credentials) (session, error) {
	return newSession(kmsapi.Credentials{
		AccessKeyID: c.AccessKeyId, AccessKeySecret: c.AccessKeySecret, SecurityToken: c.SecurityToken,
	}, c.Expiration)
}

// stsHint says what can be done about a refusal of STS, by the beginning of its
// code.
func stsHint(err error) string {
	refusal, ok := errors.AsType[*kmsapi.Error](err)
	if !ok || refusal.Code == "" {
		return ""
	}
	for _, h := range []struct{ code, hint string }{
		{"NoPermission", "the role's trust policy must name who assumes it, and that identity needs sts:AssumeRole on the role"},
		{"EntityNotExist.Role", "there is no such role in that account"},
		{"InvalidParameter.DurationSeconds", "the role allows shorter sessions only, see its MaxSessionDuration"},
		{"AuthenticationFail.OIDCToken.Expired", "whoever writes the token file no longer renews it"},
		{"AuthenticationFail", "compare the token's issuer and audience with the OIDC provider's in RAM"},
		{"InvalidAccessKeyId", "the credentials that assume the role are not those of an active AccessKey"},
		{"SignatureDoesNotMatch", "the secret of the credentials that assume the role is wrong"},
	} {
		if strings.HasPrefix(refusal.Code, h.code) {
			return h.hint
		}
	}
	return ""
}
