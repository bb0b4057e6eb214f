package config

import (
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Credentials say who the broker is at Alibaba Cloud. Exactly one of File, ECSRole
// and OIDC is set; Role may stand on the first two.
type Credentials struct {
	File        string
	ECSRole     *ECSRole
	OIDC        *OIDC
	Role        *Role
	STSEndpoint string // "" is the region's
}

// ECSRole is the RAM role of the ECS instance that the broker runs on.
type ECSRole struct {
	Name     string // "" is asked of the metadata service
	Metadata string // its address; "" is the real one
}

// OIDC is a role that an OIDC token is exchanged for.
type OIDC struct {
	ProviderARN string
	TokenFile   string
	Session     Session
}

// Role is a role that the other credentials assume.
type Role struct {
	ExternalID string
	Session    Session
}

// Session is what is asked of STS.
type Session struct {
	RoleARN  string
	Name     string
	Duration time.Duration
}

const (
	defaultSession         = "kmsbroker"
	defaultSessionDuration = time.Hour
	// Bounds of AssumeRole.
	minSessionDuration, maxSessionDuration = 15 * time.Minute, 12 * time.Hour
)

func (t *table) credentials() Credentials {
	c := Credentials{File: t.absolute("credentials_file", ""), STSEndpoint: t.text("sts_endpoint", "")}
	if _, err := kmsapi.ParseEndpoint(c.STSEndpoint); c.STSEndpoint != "" && err != nil {
		t.problem("sts_endpoint", "%s: %v", t.full("sts_endpoint"), err)
	}
	if sub, ok := t.table("ecs_role"); ok {
		c.ECSRole = &ECSRole{Name: sub.text("name", ""), Metadata: sub.text("metadata", "")}
		sub.done()
	}
	if sub, ok := t.table("oidc"); ok {
		c.OIDC = &OIDC{ProviderARN: sub.needed("provider_arn"), TokenFile: sub.required("token_file"), Session: sub.session()}
		sub.done()
	}
	if sub, ok := t.table("role"); ok {
		c.Role = &Role{ExternalID: sub.text("external_id", ""), Session: sub.session()}
		sub.done()
	}
	t.checkCredentials(c)
	return c
}

func (t *table) checkCredentials(c Credentials) {
	given := 0
	for _, set := range []bool{t.has("credentials_file"), c.ECSRole != nil, c.OIDC != nil} {
		if set {
			given++
		}
	}
	switch {
	case t.has("credentials_file") && c.File == "" && t.isText("credentials_file"):
		t.problem("credentials_file", "%s must be an absolute path, not \"\"", t.full("credentials_file"))
	case given == 0:
		t.doc.problem(t.line, "%s is missing, or one of %s and %s instead", t.full("credentials_file"), t.full("ecs_role"), t.full("oidc"))
	case given > 1:
		t.doc.problem(t.line, "only one of %s, %s and %s may be given", t.full("credentials_file"), t.full("ecs_role"), t.full("oidc"))
	case c.Role != nil && c.OIDC != nil:
		t.problem("role", "%s cannot stand on %s: name the role there", t.full("role"), t.full("oidc"))
	}
}

func (t *table) has(key string) bool {
	_, ok := t.values[key]
	return ok
}

// needed reads a string that has no default.
func (t *table) needed(key string) string {
	if !t.present(key) {
		return ""
	}
	return t.text(key, "")
}

func (t *table) session() Session {
	return Session{
		RoleARN: t.needed("role_arn"), Name: t.text("session_name", defaultSession),
		Duration: t.duration("session_duration", defaultSessionDuration, minSessionDuration, maxSessionDuration),
	}
}
