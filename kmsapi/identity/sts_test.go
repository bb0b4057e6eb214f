package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/responses"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ram"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

const (
	testRole     = "acs:ram::1000000000000001:role/kms"
	testProvider = "acs:ram::1000000000000001:oidc-provider/cluster"
	rootID       = "LTAIroot"
	rootSecret   = "root-secret"
)

// account is an emulator with a role kms that the user broker and the tokens of
// the provider cluster may assume.
type account struct {
	url    string
	broker kmsapi.Credentials
}

func newAccount(t *testing.T) account {
	t.Helper()
	emulated, err := emulator.New(emulator.Config{Regions: []string{"cn-hangzhou"}, AccessKeyID: rootID, AccessKeySecret: rootSecret})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(emulated)
	t.Cleanup(server.Close)
	root, err := kmsapi.NewRPC(kmsapi.RPCConfig{
		Service: "RAM", Region: "cn-hangzhou", Endpoint: server.URL,
		Credentials: kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: rootID, AccessKeySecret: rootSecret}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(root.Close)
	do := func(req requests.AcsRequest, resp responses.AcsResponse) {
		t.Helper()
		if err := root.Do(t.Context(), req, resp); err != nil {
			t.Fatal(err)
		}
	}
	user := ram.CreateCreateUserRequest()
	user.UserName = "broker"
	do(user, ram.CreateCreateUserResponse())
	attach := ram.CreateAttachPolicyToUserRequest()
	attach.PolicyType, attach.PolicyName, attach.UserName = "System", "AliyunSTSAssumeRoleAccess", "broker"
	do(attach, ram.CreateAttachPolicyToUserResponse())
	role := ram.CreateCreateRoleRequest()
	role.RoleName = "kms"
	role.AssumeRolePolicyDocument = `{"Version":"1","Statement":[
		{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"RAM":["acs:ram::1000000000000001:user/broker"]}},
		{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Federated":["` + testProvider + `"]},
		 "Condition":{"StringEquals":{"oidc:aud":"kms"}}}]}`
	do(role, ram.CreateCreateRoleResponse())
	key, made := ram.CreateCreateAccessKeyRequest(), ram.CreateCreateAccessKeyResponse()
	key.UserName = "broker"
	do(key, made)
	return account{server.URL, kmsapi.Credentials{AccessKeyID: made.AccessKey.AccessKeyId, AccessKeySecret: made.AccessKey.AccessKeySecret}}
}

// works checks that KMS knows the credentials of a source.
func (a account) works(t *testing.T, source kmsapi.CredentialSource) {
	t.Helper()
	kms, err := kmsapi.NewClient(kmsapi.ClientConfig{Region: "cn-hangzhou", Endpoint: a.url, Credentials: source})
	if err != nil {
		t.Fatal(err)
	}
	defer kms.Close()
	_, err = kms.ListKeys(t.Context(), kmsapi.Page{})
	// The role has no policy: KMS believes who asks, and refuses.
	if e, ok := errors.AsType[*kmsapi.Error](err); !ok || e.Code != kmsapi.CodeNoPermission {
		t.Errorf("KMS: %v", err)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (a account) role(t *testing.T, change func(*RoleConfig)) *Source {
	t.Helper()
	config := RoleConfig{
		STS: STS{Region: "cn-hangzhou", Endpoint: a.url}, Session: Session{RoleARN: testRole},
		Base: kmsapi.StaticCredentials(a.broker), Log: discard(),
	}
	change(&config)
	s, err := Role(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestRole(t *testing.T) {
	a := newAccount(t)
	s := a.role(t, func(*RoleConfig) {})
	c, err := s.Credentials(t.Context())
	if err != nil || !strings.HasPrefix(c.AccessKeyID, "STS.") || c.SecurityToken == "" {
		t.Fatalf("%v, %v", c, err)
	}
	if life := time.Until(s.current.expires); life > time.Hour || life < 59*time.Minute {
		t.Errorf("good for %v", life)
	}
	a.works(t, s)
}

func TestRoleRefused(t *testing.T) {
	a := newAccount(t)
	tests := []struct {
		name   string
		change func(*RoleConfig)
		says   string
	}{
		{"no such role", func(c *RoleConfig) { c.Session.RoleARN += "2" }, "there is no such role"},
		{"too long", func(c *RoleConfig) { c.Session.Duration = 12 * time.Hour }, "DurationSeconds"},
		{"unknown key", func(c *RoleConfig) {
			c.Base = kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: "LTAInobody", AccessKeySecret: a.broker.AccessKeySecret})
		}, "not those of an active AccessKey"},
		{"wrong secret", func(c *RoleConfig) {
			c.Base = kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: a.broker.AccessKeyID, AccessKeySecret: "wrong-secret"})
		}, "the secret of the credentials that assume the role is wrong"},
		{"untrusted", func(c *RoleConfig) {
			c.Base = kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: rootID, AccessKeySecret: rootSecret})
		}, "trust policy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.role(t, tt.change).Credentials(t.Context())
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Source != roleSource || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), a.url) {
				t.Fatalf("got %v, want %q", err, tt.says)
			}
			for _, secret := range []string{a.broker.AccessKeySecret, "wrong-secret", rootSecret} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q leaks in %v", secret, err)
				}
			}
		})
	}
}

// TestRoleOfAFile: the credentials that assume the role rotate without a restart.
func TestRoleOfAFile(t *testing.T) {
	a := newAccount(t)
	path := filepath.Join(t.TempDir(), "credentials.toml")
	write := func(secret string) {
		t.Helper()
		next := path + ".next"
		if err := os.WriteFile(next, fmt.Appendf(nil, "access_key_id = %q\naccess_key_secret = %q\n", a.broker.AccessKeyID, secret), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	write("not-yet-the-secret")
	file, err := kmsapi.CredentialsFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := a.role(t, func(c *RoleConfig) { c.Base = file })
	if _, err := s.fetch(t.Context()); err == nil {
		t.Fatal("STS took a wrong secret")
	}
	write(a.broker.AccessKeySecret)
	if _, err := s.fetch(t.Context()); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

// jwt is a token of the provider cluster; the emulator looks at its claims alone.
func jwt(aud string, expires time.Time) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"none"}`)) + "." +
		part(fmt.Appendf(nil, `{"iss":"https://cluster","sub":"kmsbroker","aud":%q,"exp":%d}`, aud, expires.Unix())) + ".signature"
}

func (a account) oidc(t *testing.T, token string, mode os.FileMode) (*Source, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), mode); err != nil {
		t.Fatal(err)
	}
	s, err := OIDC(OIDCConfig{
		STS: STS{Region: "cn-hangzhou", Endpoint: a.url}, Session: Session{RoleARN: testRole, Name: "test", Duration: 20 * time.Minute},
		ProviderARN: testProvider, TokenFile: path, Log: discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, path
}

func TestOIDC(t *testing.T) {
	a := newAccount(t)
	s, path := a.oidc(t, jwt("kms", time.Now().Add(time.Hour)), 0o600)
	c, err := s.Credentials(t.Context())
	if err != nil || !strings.HasPrefix(c.AccessKeyID, "STS.") {
		t.Fatalf("%v, %v", c, err)
	}
	if life := time.Until(s.current.expires); life > 20*time.Minute || life < 19*time.Minute {
		t.Errorf("good for %v", life)
	}
	a.works(t, s)
	// The token is read anew.
	if err := os.WriteFile(path, []byte(jwt("someone else", time.Now().Add(time.Hour))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fetch(t.Context()); err == nil {
		t.Error("the token file was not read again")
	}
}

func TestOIDCRefused(t *testing.T) {
	a := newAccount(t)
	hour := time.Now().Add(time.Hour)
	tests := []struct {
		name, token string
		mode        os.FileMode
		says        string
	}{
		{"expired", jwt("kms", time.Now().Add(-time.Hour)), 0o600, "no longer renews it"},
		{"no token", "secretly-not-a-token", 0o600, "issuer and audience"},
		{"another audience", jwt("nas", hour), 0o600, "trust policy"},
		{"open to others", jwt("kms", hour), 0o644, "chmod 600"},
		{"empty", "", 0o600, "does not hold one token"},
		{"two", "a b", 0o600, "does not hold one token"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := a.oidc(t, tt.token, tt.mode)
			_, err := s.Credentials(t.Context())
			if e, ok := errors.AsType[*Error](err); !ok || e.Source != oidcSource || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want %q", err, tt.says)
			}
			if len(tt.token) > 16 && strings.Contains(err.Error(), tt.token[:16]) {
				t.Errorf("the token leaks in %v", err)
			}
		})
	}
}

// TestOIDCIsNotSigned: the token is in the body alone, and no AccessKey goes along.
func TestOIDCIsNotSigned(t *testing.T) {
	forms := make(chan url.Values, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		if r.RequestURI != "/" {
			t.Errorf("request line has %s", r.RequestURI)
		}
		forms <- form
		// An answer that repeats the token.
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"Code":"AuthenticationFail.OIDCToken.Invalid","RequestId":"R","Message":"bad token %s"}`, form.Get("OIDCToken"))
	}))
	defer server.Close()
	token := jwt("kms", time.Now())
	s, _ := account{url: server.URL}.oidc(t, token, 0o600)
	_, err := s.Credentials(t.Context())
	if err == nil || strings.Contains(err.Error(), token[:16]) {
		t.Errorf("got %v", err)
	}
	form := <-forms
	for name := range form {
		if strings.HasPrefix(name, "Signature") || name == "AccessKeyId" || name == "SecurityToken" {
			t.Errorf("%s was sent", name)
		}
	}
	for name, want := range map[string]string{
		"Action": "AssumeRoleWithOIDC", "Version": "2015-04-01", "RoleArn": testRole, "OIDCProviderArn": testProvider,
		"OIDCToken": token, "RoleSessionName": "test", "DurationSeconds": "1200",
	} {
		if form.Get(name) != want {
			t.Errorf("%s = %q, want %q", name, form.Get(name), want)
		}
	}
}

// TestSTSIsVerified: nothing goes to an endpoint whose certificate is not good.
func TestSTSIsVerified(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	defer server.Close()
	s := account{url: strings.TrimPrefix(server.URL, "https://")}.role(t, func(c *RoleConfig) {
		c.Base = kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: "LTAI", AccessKeySecret: "s"})
	})
	if _, err := s.Credentials(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestSTSOddAnswers(t *testing.T) {
	good := `{"RequestId":"R","Credentials":{"AccessKeyId":"STS.a","AccessKeySecret":"odd-secret","SecurityToken":"odd-token","Expiration":"2026-01-01"}}`
	for _, answer := range []string{"", "{}", `{"RequestId":"R"}`, good, strings.Replace(good, "odd-token", "", 1), "<html>"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
		s := account{url: server.URL}.role(t, func(c *RoleConfig) {
			c.Base = kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: "LTAI", AccessKeySecret: "s"})
		})
		_, err := s.Credentials(t.Context())
		if err == nil || strings.Contains(err.Error(), "odd-") {
			t.Errorf("%s: %v", answer, err)
		}
		server.Close()
	}
}

func TestSessionConfiguration(t *testing.T) {
	base := kmsapi.StaticCredentials(kmsapi.Credentials{AccessKeyID: "a", AccessKeySecret: "s"})
	sts := STS{Region: "cn-hangzhou"}
	for name, config := range map[string]RoleConfig{
		"no role":     {STS: sts, Base: base},
		"odd role":    {STS: sts, Base: base, Session: Session{RoleARN: "acs:ram::1:user/kms"}},
		"short":       {STS: sts, Base: base, Session: Session{RoleARN: testRole, Duration: time.Minute}},
		"fraction":    {STS: sts, Base: base, Session: Session{RoleARN: testRole, Duration: time.Hour + 1}},
		"odd name":    {STS: sts, Base: base, Session: Session{RoleARN: testRole, Name: "a b"}},
		"no base":     {STS: sts, Session: Session{RoleARN: testRole}},
		"external ID": {STS: sts, Base: base, Session: Session{RoleARN: testRole}, ExternalID: "x"},
		"no region":   {Base: base, Session: Session{RoleARN: testRole}},
		"endpoint":    {STS: STS{Region: "cn-hangzhou", Endpoint: "https://h/p"}, Base: base, Session: Session{RoleARN: testRole}},
	} {
		if _, err := Role(config); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	for name, config := range map[string]OIDCConfig{
		"provider": {STS: sts, Session: Session{RoleARN: testRole}, ProviderARN: testRole, TokenFile: "/token"},
		"relative": {STS: sts, Session: Session{RoleARN: testRole}, ProviderARN: testProvider, TokenFile: "token"},
	} {
		if _, err := OIDC(config); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
