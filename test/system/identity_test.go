package system

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// writeCredentials puts an AccessKey in place of another the way that an
// administrator does.
func writeCredentials(t *testing.T, s *stage.Stage, key kmsapi.Credentials) {
	t.Helper()
	s.Write("new.toml", fmt.Sprintf("access_key_id = %q\naccess_key_secret = %q\n", key.AccessKeyID, key.AccessKeySecret), 0o600)
	if err := os.Rename(s.Path("new.toml"), s.Path("credentials.toml")); err != nil {
		t.Fatal(err)
	}
}

func encrypt(s *stage.Stage) stage.Result {
	return s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1")
}

// TestStrayCredentials: Alibaba's tools take AccessKeys, roles and addresses from
// the environment and from files in the home directory. The broker takes none.
func TestStrayCredentials(t *testing.T) {
	s := stage.New(t, stage.Options{})
	stray := newUser(t, s, "stray", allowKMS)
	var asked atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(trap.Close)
	home := s.Path("home")
	profile := fmt.Sprintf("[default]\nenable = true\ntype = access_key\naccess_key_id = %s\naccess_key_secret = %s\n", stray.AccessKeyID, stray.AccessKeySecret)
	if err := os.MkdirAll(filepath.Join(home, ".alibabacloud"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Write("home/.alibabacloud/credentials", profile, 0o600)
	environment := []string{
		"HOME=" + home, "ALIBABA_CLOUD_CREDENTIALS_FILE=" + home + "/.alibabacloud/credentials", "ALIBABA_CLOUD_PROFILE=default",
		"ALIBABA_CLOUD_CREDENTIALS_URI=" + trap.URL, "ALIBABA_CLOUD_ECS_METADATA=stray",
		"ALIBABA_CLOUD_ROLE_ARN=acs:ram::1000000000000001:role/stray", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN=acs:ram::1000000000000001:oidc-provider/stray",
		"ALIBABA_CLOUD_OIDC_TOKEN_FILE=" + s.Path("credentials.toml"), "ALICLOUD_REGION=" + stage.OtherRegion, "ALIBABA_CLOUD_REGION_ID=" + stage.OtherRegion,
		"HTTP_PROXY=" + trap.URL,
	}
	for _, name := range []string{"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABACLOUD_ACCESS_KEY_ID", "ALICLOUD_ACCESS_KEY_ID", "ALICLOUD_ACCESS_KEY"} {
		environment = append(environment, name+"="+stray.AccessKeyID)
	}
	for _, name := range []string{"ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABACLOUD_ACCESS_KEY_SECRET", "ALICLOUD_ACCESS_KEY_SECRET", "ALICLOUD_SECRET_KEY"} {
		environment = append(environment, name+"="+stray.AccessKeySecret)
	}
	seen := watchSigners(t, s)
	program := filepath.Join(stage.Binaries(t), "kmsbrokerd")
	daemon := s.StartProgram(program, environment...)
	key := s.Import("app-1")
	s.Must(encrypt(s), nil)
	if who := seen.list(); !slices.Equal(who, []string{stage.AccessKeyID}) || key.Region != stage.Region {
		t.Errorf("%v signed, in %s", who, key.Region)
	}
	if plugin := processFile(t, s.Backend().PID, "environ"); strings.Contains(plugin, stray.AccessKeyID) {
		t.Error("the plugin inherited the AccessKey")
	}
	// Without the file they are no help either.
	if err := os.Remove(s.Path("credentials.toml")); err != nil {
		t.Fatal(err)
	}
	s.Refused(encrypt(s), 1, "credentials file", s.Path("credentials.toml"))
	daemon.Stop()
	if who := seen.list(); len(who) != 1 || asked.Load() != 0 {
		t.Errorf("%v signed, and %d requests went where the environment says", who, asked.Load())
	}

	s.Identify("")
	cmd := exec.Command(program, "--check-config", "--config", s.Config())
	cmd.Env = environment
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "credentials_file") {
		t.Errorf("without credentials in the configuration: %v, %s", err, out)
	}
}

// TestCredentialsFile is replaced while the daemon runs, and each time not even a
// mistake needs a restart.
func TestCredentialsFile(t *testing.T) {
	s := stage.New(t, stage.Options{})
	first := newUser(t, s, "broker", allowKMS)
	if err := os.Remove(s.Path("credentials.toml")); err != nil {
		t.Fatal(err)
	}
	seen := watchSigners(t, s)
	daemon := s.Start()
	if err := daemon.Wait("credentials file not there yet"); err != nil {
		t.Error(err)
	}
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 1, "credentials file", "no such file")
	writeCredentials(t, s, first)
	s.Import("app-1")

	second := newAccessKey(t, s, "broker")
	writeCredentials(t, s, second)
	administer(t, s, ramVersion, "DeleteAccessKey", params{"UserName": "broker", "UserAccessKeyId": first.AccessKeyID})
	s.Must(encrypt(s), nil)
	if who := seen.list(); !slices.Equal(who, []string{first.AccessKeyID, second.AccessKeyID}) {
		t.Errorf("%v signed", who)
	}

	if err := os.Chmod(s.Path("credentials.toml"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Refused(encrypt(s), 1, "could be read by others", "chmod 600")
	s.Write("credentials.toml", "access_key_secret = "+second.AccessKeySecret, 0o600)
	if err := os.Chmod(s.Path("credentials.toml"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := encrypt(s)
	s.Refused(r, 1, "line 1")
	writeCredentials(t, s, kmsapi.Credentials{AccessKeyID: second.AccessKeyID, AccessKeySecret: "wrong-secret-4711"})
	s.Refused(encrypt(s), 1, "SignatureDoesNotMatch", "hint:", "access key")
	writeCredentials(t, s, second)
	s.Must(encrypt(s), nil)
	if strings.Contains(daemon.Log.String()+r.Stderr, second.AccessKeySecret) {
		t.Error("the secret came out")
	}
}

// instance is the metadata service of an ECS instance whose credentials live for
// a few seconds.
type instance struct {
	*httptest.Server
	broken atomic.Bool
}

// credentialsLife is as short as the time that it takes to see them expire.
const credentialsLife = 4 * time.Second

func startMetadata(t *testing.T, s *stage.Stage, now *clock) *instance {
	t.Helper()
	i := &instance{}
	emulated := s.KMS.Metadata("broker")
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i.broken.Load() {
			http.Error(w, "500 - Internal Server Error", http.StatusInternalServerError)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/broker") {
			// They are made six hours ahead of their end.
			now.set(credentialsLife - 6*time.Hour)
			defer now.set(0)
		}
		emulated.ServeHTTP(w, r)
	}))
	t.Cleanup(i.Close)
	return i
}

// TestECSRole: the credentials of the machine's role are fetched again before they
// expire, while calls go on.
func TestECSRole(t *testing.T) {
	var now clock
	s := stage.New(t, stage.Options{Clock: now.Now})
	newRole(t, s, "broker", `"Principal":{"Service":["ecs.aliyuncs.com"]}`)
	machine := startMetadata(t, s, &now)
	s.Identify(fmt.Sprintf("ecs_role = { metadata = %q }", machine.URL))
	seen := watchSigners(t, s)
	daemon := s.Start()
	s.Import("app-1")
	for len(seen.list()) < 3 {
		s.Must(encrypt(s), nil)
	}
	if !seen.temporary() {
		t.Errorf("%v signed", seen.list())
	}

	// They serve to their end, and those who call then are told why there are no
	// others.
	machine.broken.Store(true)
	served := false
	r := encrypt(s)
	for ; r.Status == 0; r = encrypt(s) {
		served = served || strings.Contains(daemon.Log.String(), "credentials not refreshed")
	}
	if strings.Contains(r.Stderr, "InvalidSecurityToken.Expired") { // on its way to KMS
		r = encrypt(s)
	}
	s.Refused(r, 1, "credentials of ECS RAM role", "HTTP status 500")
	if !served {
		t.Error("the credentials did not serve to their end")
	}
	machine.broken.Store(false)
	for begin := time.Now(); encrypt(s).Status != 0; {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("the daemon did not recover")
		}
	}
}

// TestAssumedRole: the AccessKey of the file may do nothing but assume the role.
func TestAssumedRole(t *testing.T) {
	s := stage.New(t, stage.Options{})
	writeCredentials(t, s, newUser(t, s, "broker", allowAssume))
	arn := newRole(t, s, "manager", `"Principal":{"RAM":["acs:ram::1000000000000001:user/broker"]},"Condition":{"StringEquals":{"sts:ExternalId":"house-4711"}}`)
	s.Identify(fmt.Sprintf("credentials_file = %q\nsts_endpoint = %q\nrole = { role_arn = %q, external_id = \"house-4711\" }",
		s.Path("credentials.toml"), s.EndpointURL(), arn))
	seen := watchSigners(t, s)
	daemon := s.Start()
	s.Import("app-1")
	s.Must(encrypt(s), nil)
	if n := s.Actions("AssumeRole"); n != 1 || !seen.temporary() {
		t.Errorf("AssumeRole was called %d times, and %v signed", n, seen.list())
	}
	daemon.Stop()

	s.Configure("role/manager", "role/absent")
	s.Start()
	s.Refused(encrypt(s), 1, "credentials of role", "EntityNotExist.Role", "role/absent", "no such role")
}

// TestOIDC: the role is had for a token that somebody renews in a file.
func TestOIDC(t *testing.T) {
	s := stage.New(t, stage.Options{})
	const provider = "acs:ram::1000000000000001:oidc-provider/cluster"
	arn := newRole(t, s, "pod", `"Principal":{"Federated":["`+provider+`"]},"Condition":{"StringEquals":{"oidc:iss":"https://cluster","oidc:aud":"sts.aliyuncs.com","oidc:sub":"system:serviceaccount:kms:broker"}}`)
	writeToken := func(subject string, expires time.Time) {
		claims, err := json.Marshal(map[string]any{"iss": "https://cluster", "aud": "sts.aliyuncs.com", "sub": subject, "exp": expires.Unix()})
		if err != nil {
			t.Fatal(err)
		}
		s.Write("token", "e30."+base64.RawURLEncoding.EncodeToString(claims)+".c2ln", 0o600)
	}
	writeToken("system:serviceaccount:kms:broker", time.Now().Add(-time.Minute))
	s.Identify(fmt.Sprintf("sts_endpoint = %q\noidc = { provider_arn = %q, role_arn = %q, token_file = %q }", s.EndpointURL(), provider, arn, s.Path("token")))
	seen := watchSigners(t, s)
	daemon := s.Start()
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 1, "AuthenticationFail.OIDCToken.Expired", "no longer renews")
	daemon.Stop()
	writeToken("system:serviceaccount:kms:broker", time.Now().Add(time.Hour))
	s.Start()
	s.Import("app-1")
	s.Must(encrypt(s), nil)
	if n := s.Actions("AssumeRoleWithOIDC"); n != 2 || !seen.temporary() {
		t.Errorf("AssumeRoleWithOIDC was called %d times, and %v signed", n, seen.list())
	}
}
