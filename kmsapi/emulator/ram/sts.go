package ram

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const assumeRoleAction = "sts:AssumeRole"

var sessionNames = regexp.MustCompile(`^[A-Za-z0-9.@_-]{2,64}$`)

// Session is the temporary credentials of a role, as the services hand them out.
type Session struct {
	AccessKeyID     string `json:"AccessKeyId"`
	AccessKeySecret string
	SecurityToken   string
	Expiration      string
}

type assumedRole struct {
	AssumedRoleUser struct {
		Arn           string
		AssumedRoleID string `json:"AssumedRoleId"`
	}
	Credentials   Session
	OIDCTokenInfo *oidcTokenInfo `json:",omitempty"`
}

// assumeRole needs the permission of the caller and the trust of the role. The
// account itself cannot assume a role.
func assumeRole(c *call) (any, error) {
	r, err := c.roleOfARN()
	if err != nil {
		return nil, err
	}
	q := c.question(assumeRoleAction, c.account.arn("role/"+r.RoleName))
	q.Principals = map[string][]string{"RAM": append([]string{c.account.arn("root")}, c.who.names...)}
	if id := c.params["ExternalId"]; id != "" {
		q.Context["sts:ExternalId"] = id
	}
	if c.who.root || c.who.Evaluate(q) != policy.Allowed || c.state.trusts[r.RoleName].Evaluate(q) != policy.Allowed {
		return nil, errNoPermission
	}
	return c.assume(r)
}

// roleOfARN finds the role that RoleArn names. A role that is not there and one
// that does not trust the caller differ in the answer, as they do at STS.
func (c *call) roleOfARN() (*role, error) {
	name, ok := strings.CutPrefix(c.params["RoleArn"], c.account.arn("role/"))
	if !ok {
		return nil, wire.InvalidParameter("RoleArn")
	}
	r, ok := c.state.Roles[name]
	if !ok {
		return nil, errNoRole
	}
	return r, nil
}

// assume makes the credentials of a role whose trust was established.
func (c *call) assume(r *role) (*assumedRole, error) {
	session := c.params["RoleSessionName"]
	if !sessionNames.MatchString(session) {
		return nil, wire.InvalidParameter("RoleSessionName")
	}
	seconds, err := c.integer("DurationSeconds", defaultSession, minSession, r.MaxSession)
	if err != nil {
		return nil, err
	}
	narrow := c.params["Policy"]
	if narrow != "" {
		if narrow, err = c.document("Policy", policy.Identity); err != nil {
			return nil, err
		}
	}
	answer := &assumedRole{}
	answer.AssumedRoleUser.Arn = c.account.arn("assumed-role/" + r.RoleName + "/" + session)
	answer.AssumedRoleUser.AssumedRoleID = r.RoleID + ":" + session
	answer.Credentials, err = c.account.newSession(r, session, narrow, c.now.Add(time.Duration(seconds)*time.Second))
	return answer, err
}

func (a *Account) newSession(r *role, session, narrow string, expires time.Time) (Session, error) {
	s := Session{AccessKeyID: temporaryPrefix + rand.Text()[:24], AccessKeySecret: newSecret(), Expiration: timeText(expires)}
	var err error
	s.SecurityToken, err = a.sealToken(token{
		AccessKeyID: s.AccessKeyID, Secret: s.AccessKeySecret, RoleID: r.RoleID, RoleName: r.RoleName,
		Session: session, Policy: narrow, Expires: expires,
	})
	return s, err
}

func getCallerIdentity(c *call) (any, error) {
	answer := struct {
		AccountID    string `json:"AccountId"`
		Arn          string
		IdentityType string
		PrincipalID  string `json:"PrincipalId"`
		UserID       string `json:"UserId,omitempty"`
		RoleID       string `json:"RoleId,omitempty"`
	}{AccountID: c.account.cfg.ID, Arn: c.who.ARN, PrincipalID: c.who.id, IdentityType: "Account"}
	switch {
	case c.who.user != "":
		answer.IdentityType, answer.UserID = "RAMUser", c.who.id
	case c.who.role != "":
		answer.IdentityType = "AssumedRoleUser"
		answer.RoleID, _, _ = strings.Cut(c.who.id, ":")
	}
	return answer, nil
}

// audience is the claim aud, one text or several.
type audience []string

// UnmarshalJSON accepts both forms.
func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if err := json.Unmarshal(data, &one); err == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

type oidcTokenInfo struct {
	Subject   string
	Issuer    string
	ClientIDs string `json:"ClientIds"`
}

// assumeRoleWithOIDC believes the claims of a token: it looks at its times and
// lets the role's trust judge oidc:iss, oidc:sub and oidc:aud, but there are no
// identity providers here with whose keys its signature could be checked.
func assumeRoleWithOIDC(c *call) (any, error) {
	r, err := c.roleOfARN()
	if err != nil {
		return nil, err
	}
	claims, err := c.oidcClaims()
	if err != nil {
		return nil, err
	}
	for _, aud := range claims.Audience {
		q := c.question(assumeRoleAction, "")
		q.Principals = map[string][]string{"Federated": {c.params["OIDCProviderArn"]}}
		q.Context["oidc:iss"], q.Context["oidc:sub"], q.Context["oidc:aud"] = claims.Issuer, claims.Subject, aud
		if c.state.trusts[r.RoleName].Evaluate(q) != policy.Allowed {
			continue
		}
		answer, err := c.assume(r)
		if err == nil {
			answer.OIDCTokenInfo = &oidcTokenInfo{Subject: claims.Subject, Issuer: claims.Issuer, ClientIDs: aud}
		}
		return answer, err
	}
	return nil, errNoPermission
}

type oidcClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience audience `json:"aud"`
	Expires  int64    `json:"exp"` // Unix seconds
}

func (c *call) oidcClaims() (oidcClaims, error) {
	parts := strings.Split(strings.TrimSpace(c.params["OIDCToken"]), ".")
	if len(parts) != 3 {
		return oidcClaims{}, errOIDCToken
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return oidcClaims{}, errOIDCToken
	}
	var claims oidcClaims
	if err := json.Unmarshal(raw, &claims); err != nil || claims.Issuer == "" || claims.Subject == "" {
		return oidcClaims{}, errOIDCToken
	}
	if c.now.Unix() >= claims.Expires {
		return oidcClaims{}, errOIDCExpired
	}
	return claims, nil
}
