package ram_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/ram"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const roleARN = "acs:ram::" + accountID + ":role/importer"

// role makes the role importer, which may use KMS.
func (f *fixture) role(trust string) {
	f.t.Helper()
	f.ok("CreateRole", params{"RoleName": "importer", "AssumeRolePolicyDocument": document(trust)})
	f.ok("AttachPolicyToRole", params{"PolicyType": "System", "PolicyName": "AliyunKMSFullAccess", "RoleName": "importer"})
}

const (
	trustAccount = `{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + accountID + `:root"]},"Action":"sts:AssumeRole"}`
	trustECS     = `{"Effect":"Allow","Principal":{"Service":["ecs.aliyuncs.com"]},"Action":"sts:AssumeRole"}`
	mayAssume    = `{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"` + roleARN + `"}`
)

func assuming(more params) params {
	p := params{"RoleArn": roleARN, "RoleSessionName": "broker"}
	maps.Copy(p, more)
	return p
}

// assume gets the credentials of the role.
func (f *fixture) assume(who credentials, more params) credentials {
	f.t.Helper()
	a, code := f.try(who, ram.STSVersion, "AssumeRole", assuming(more))
	if code != "" {
		f.t.Fatalf("AssumeRole answered %s", code)
	}
	return credentials{a.text("Credentials", "AccessKeyId"), a.text("Credentials", "SecurityToken")}
}

// evaluate says what the caller's policies say.
func (f *fixture) evaluate(who credentials, action string) policy.Verdict {
	f.t.Helper()
	identity, err := f.account.Identify(who.id, who.token)
	if err != nil {
		f.t.Fatal(err)
	}
	return identity.Evaluate(policy.Request{Action: action, Resource: "acs:kms:cn-hangzhou:" + accountID + ":key/a"})
}

func TestAssumeRole(t *testing.T) {
	f := newFixture(t)
	f.role(trustAccount)
	who, stranger := f.user("who"), f.user("stranger")
	f.policy("who", "assume", mayAssume)

	session := f.assume(who, nil)
	if f.evaluate(session, "kms:Decrypt") != policy.Allowed || f.evaluate(session, "ram:GetUser") != policy.Silent || f.evaluate(who, "kms:Decrypt") != policy.Silent {
		t.Error("the session has other rights than the role")
	}
	narrow := f.assume(who, params{"Policy": document(`{"Effect":"Allow","Action":["kms:Encrypt","ram:*"],"Resource":"*"}`)})
	for action, want := range map[string]policy.Verdict{"kms:Encrypt": policy.Allowed, "kms:Decrypt": policy.Denied, "ram:GetUser": policy.Silent} {
		if got := f.evaluate(narrow, action); got != want {
			t.Errorf("%s with a session policy: %d, want %d", action, got, want)
		}
	}
	identity, _ := f.try(session, ram.STSVersion, "GetCallerIdentity", nil)
	if identity.text("Arn") != "acs:ram::"+accountID+":assumed-role/importer/broker" || identity.text("IdentityType") != "AssumedRoleUser" {
		t.Errorf("the caller is %v", identity)
	}

	for name, tt := range map[string]struct {
		who  credentials
		p    params
		code string
	}{
		"no permission":    {stranger, nil, "NoPermission"},
		"the root":         {root, nil, "NoPermission"},
		"no such role":     {who, params{"RoleArn": "acs:ram::" + accountID + ":role/none"}, "EntityNotExist.Role"},
		"another account":  {who, params{"RoleArn": "acs:ram::2000000000000002:role/importer"}, "InvalidParameter"},
		"session name":     {who, params{"RoleSessionName": "a b"}, "InvalidParameter"},
		"too short":        {who, params{"DurationSeconds": "899"}, "InvalidParameter"},
		"longer than role": {who, params{"DurationSeconds": "3601"}, "InvalidParameter"},
		"session policy":   {who, params{"Policy": "{}"}, "MalformedPolicyDocument"},
	} {
		if _, code := f.try(tt.who, ram.STSVersion, "AssumeRole", assuming(tt.p)); code != tt.code {
			t.Errorf("%s: %q, want %s", name, code, tt.code)
		}
	}
}

func TestRoleMustTrust(t *testing.T) {
	f := newFixture(t)
	f.role(`{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + accountID + `:user/friend"]},"Action":"sts:AssumeRole"}`)
	friend, who := f.user("friend"), f.user("who")
	f.policy("friend", "assume", mayAssume)
	f.ok("AttachPolicyToUser", params{"PolicyType": "Custom", "PolicyName": "assume", "UserName": "who"})
	f.assume(friend, nil)
	if _, code := f.try(who, ram.STSVersion, "AssumeRole", assuming(nil)); code != "NoPermission" {
		t.Errorf("answered %q", code)
	}
}

func TestSecurityTokens(t *testing.T) {
	f := newFixture(t)
	f.role(trustAccount)
	who := f.user("who")
	f.policy("who", "assume", mayAssume)
	session, other := f.assume(who, params{"DurationSeconds": "900"}), f.assume(who, nil)
	check := func(name string, c credentials, want error) {
		t.Helper()
		if _, err := f.account.Secret(c.id, c.token); !errors.Is(err, want) {
			t.Errorf("%s: secret: %v, want %v", name, err, want)
		}
		if _, err := f.account.Identify(c.id, c.token); !errors.Is(err, want) {
			t.Errorf("%s: identity: %v, want %v", name, err, want)
		}
	}
	check("good", session, nil)
	check("no token", credentials{session.id, ""}, wire.ErrMissingSecurityToken)
	check("another's token", credentials{session.id, other.token}, wire.ErrTokenMismatch)
	check("with a user's key", credentials{who.id, session.token}, wire.ErrTokenMismatch)
	check("with the root's key", credentials{rootID, session.token}, wire.ErrTokenMismatch)
	check("not base64", credentials{session.id, "!"}, wire.ErrMalformedToken)
	check("made up", credentials{session.id, base64.StdEncoding.EncodeToString(make([]byte, 100))}, wire.ErrMalformedToken)

	f.restart()
	check("after a restart", session, nil)
	f.now = f.now.Add(15*time.Minute - time.Second)
	check("a second before the end", session, nil)
	f.now = f.now.Add(time.Second)
	check("at the end", session, wire.ErrExpiredToken)

	f.ok("DetachPolicyFromRole", params{"PolicyType": "System", "PolicyName": "AliyunKMSFullAccess", "RoleName": "importer"})
	f.ok("DeleteRole", params{"RoleName": "importer"})
	f.role(trustAccount)
	if _, err := f.account.Identify(other.id, other.token); !errors.Is(err, wire.ErrUnknownAccessKey) {
		t.Errorf("a session of a deleted role: %v", err)
	}
}

// jwt is a token as an identity provider makes it; nobody checks its signature.
func jwt(claims map[string]any) string {
	data, _ := json.Marshal(claims) //nolint:errchkjson // a map of texts and numbers
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part(data) + "." + part([]byte("signature"))
}

func TestAssumeRoleWithOIDC(t *testing.T) {
	f := newFixture(t)
	const provider = "acs:ram::" + accountID + ":oidc-provider/cluster"
	f.role(`{"Effect":"Allow","Principal":{"Federated":["` + provider + `"]},"Action":"sts:AssumeRole","Condition":{"StringEquals":{` +
		`"oidc:iss":"https://issuer.example","oidc:aud":"sts.aliyuncs.com","oidc:sub":"system:serviceaccount:a:b"}}}`)
	good := map[string]any{"iss": "https://issuer.example", "aud": []string{"x", "sts.aliyuncs.com"}, "sub": "system:serviceaccount:a:b", "exp": f.now.Add(time.Hour).Unix()}
	with := func(name string, value any) string {
		claims := maps.Clone(good)
		claims[name] = value
		return jwt(claims)
	}
	for name, tt := range map[string]struct{ token, provider, code string }{
		"good":             {jwt(good), provider, ""},
		"one audience":     {with("aud", "sts.aliyuncs.com"), provider, ""},
		"another audience": {with("aud", "x"), provider, "NoPermission"},
		"another subject":  {with("sub", "x"), provider, "NoPermission"},
		"another provider": {jwt(good), provider + "2", "NoPermission"},
		"expired":          {with("exp", f.now.Unix()), provider, "AuthenticationFail.OIDCToken.Expired"},
		"no expiry":        {with("exp", nil), provider, "AuthenticationFail.OIDCToken.Expired"},
		"no token":         {"a.b", provider, "AuthenticationFail.OIDCToken.Invalid"},
		"no claims":        {"a.!.c", provider, "AuthenticationFail.OIDCToken.Invalid"},
		"no issuer":        {with("iss", ""), provider, "AuthenticationFail.OIDCToken.Invalid"},
	} {
		p := assuming(params{"OIDCProviderArn": tt.provider, "OIDCToken": tt.token})
		r := &wire.Request{Action: "AssumeRoleWithOIDC", Version: ram.STSVersion, Params: wire.Params(p)}
		_, err := f.account.ServeSTS(r, ram.Identity{})
		var e *wire.Error
		if (tt.code == "" && err != nil) || (tt.code != "" && (!errors.As(err, &e) || e.Code != tt.code)) {
			t.Errorf("%s: %v, want %q", name, err, tt.code)
		}
	}
	if !ram.Unsigned(&wire.Request{Action: "AssumeRoleWithOIDC", Version: ram.STSVersion}) || ram.Unsigned(&wire.Request{Action: "AssumeRole", Version: ram.STSVersion}) {
		t.Error("other actions may come unsigned")
	}
	_, err := f.account.ServeSTS(&wire.Request{Action: "AssumeRole", Version: ram.STSVersion, Params: wire.Params(assuming(nil))}, ram.Identity{})
	if err == nil {
		t.Error("nobody may assume a role")
	}
}

func TestMetadata(t *testing.T) {
	f := newFixture(t)
	f.role(trustECS)
	f.ok("CreateRole", params{"RoleName": "distrustful", "AssumeRolePolicyDocument": document(trustAccount)})
	const credentialsPath = "/latest/meta-data/ram/security-credentials/"
	do := func(h http.Handler, method, path, header, value string) (int, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set(header, value)
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const ttl, token = "X-aliyun-ecs-metadata-token-ttl-seconds", "X-aliyun-ecs-metadata-token"
	h := f.account.Metadata("importer")
	status, good := do(h, http.MethodPut, "/latest/api/token", ttl, "60")
	if status != http.StatusOK || good == "" {
		t.Fatalf("token: %d %s", status, good)
	}
	if status, name := do(h, http.MethodGet, credentialsPath, token, good); status != http.StatusOK || name != "importer" {
		t.Errorf("role: %d %s", status, name)
	}
	status, body := do(h, http.MethodGet, credentialsPath+"importer", token, good)
	var got struct{ AccessKeyID, AccessKeySecret, SecurityToken, Expiration, LastUpdated, Code string }
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || got.Code != "Success" || got.Expiration != "2026-05-01T16:00:00Z" {
		t.Fatalf("credentials: %d %s", status, body)
	}
	if secret, err := f.account.Secret(got.AccessKeyID, got.SecurityToken); err != nil || secret != got.AccessKeySecret {
		t.Errorf("the credentials do not work: %v", err)
	}
	for _, seconds := range []string{"", "0", "21601", "x"} {
		if status, _ := do(h, http.MethodPut, "/latest/api/token", ttl, seconds); status != http.StatusBadRequest {
			t.Errorf("a token for %q seconds: %d", seconds, status)
		}
	}
	for name, tt := range map[string]struct {
		handler     http.Handler
		path, token string
		status      int
	}{
		"no token":     {h, "importer", "", http.StatusForbidden},
		"made up":      {h, "importer", "x", http.StatusForbidden},
		"another role": {h, "other", good, http.StatusNotFound},
	} {
		if status, _ := do(tt.handler, http.MethodGet, credentialsPath+tt.path, token, tt.token); status != tt.status {
			t.Errorf("%s: %d, want %d", name, status, tt.status)
		}
	}
	for _, role := range []string{"distrustful", "none"} {
		h := f.account.Metadata(role)
		_, good := do(h, http.MethodPut, "/latest/api/token", ttl, "60")
		if status, _ := do(h, http.MethodGet, credentialsPath+role, token, good); status != http.StatusNotFound {
			t.Errorf("credentials of %s: %d", role, status)
		}
	}
	f.now = f.now.Add(time.Minute)
	if status, _ := do(h, http.MethodGet, credentialsPath, token, good); status != http.StatusForbidden {
		t.Error("an expired token still reads")
	}
}

func TestRoles(t *testing.T) {
	f := newFixture(t)
	f.refused("MalformedPolicyDocument", "CreateRole", params{"RoleName": "r", "AssumeRolePolicyDocument": document(allowAll)})
	f.refused("InvalidParameter", "CreateRole", params{"RoleName": "r", "AssumeRolePolicyDocument": document(trustECS), "MaxSessionDuration": "43201"})
	f.role(trustECS)
	f.refused("EntityAlreadyExists.Role", "CreateRole", params{"RoleName": "importer", "AssumeRolePolicyDocument": document(trustECS)})
	f.ok("UpdateRole", params{"RoleName": "importer", "NewAssumeRolePolicyDocument": document(trustAccount), "NewMaxSessionDuration": "7200"})
	got := f.ok("GetRole", params{"RoleName": "importer"})
	if got.text("Role", "Arn") != roleARN || got.text("Role", "AssumeRolePolicyDocument") != document(trustAccount) || got.text("Role", "MaxSessionDuration") != "7200" {
		t.Errorf("got %v", got)
	}
	if n := len(f.ok("ListRoles", nil).list("Roles", "Role")); n != 1 {
		t.Errorf("%d roles", n)
	}
	if n := len(f.ok("ListPoliciesForRole", params{"RoleName": "importer"}).list("Policies", "Policy")); n != 1 {
		t.Errorf("%d policies", n)
	}
	f.refused("DeleteConflict.Role.Policy", "DeleteRole", params{"RoleName": "importer"})
	f.refused("EntityNotExist.Role", "GetRole", params{"RoleName": "none"})
	f.refused("EntityNotExist.Role.Policy", "DetachPolicyFromRole", params{"PolicyType": "Custom", "PolicyName": "none", "RoleName": "importer"})
}

// FuzzClaims reads any OIDC token without harm.
func FuzzClaims(f *testing.F) {
	f.Add(jwt(map[string]any{"iss": "i", "sub": "s", "aud": "a", "exp": 1}))
	f.Add("a..b")
	account, err := ram.New(ram.Config{ID: accountID, Now: time.Now})
	if err != nil {
		f.Fatal(err)
	}
	root, err := account.Identify("", "")
	if err != nil {
		f.Fatal(err)
	}
	create := &wire.Request{Action: "CreateRole", Params: wire.Params{"RoleName": "importer", "AssumeRolePolicyDocument": document(trustECS)}}
	if _, err := account.Serve(create, root); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		r := &wire.Request{Action: "AssumeRoleWithOIDC", Params: wire.Params(assuming(params{"OIDCProviderArn": "p", "OIDCToken": token}))}
		if _, err := account.ServeSTS(r, ram.Identity{}); err == nil {
			t.Errorf("%q is let in", token)
		}
	})
}
