package config

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
)

var update = flag.Bool("update", false, "write the golden files")

var testAccounts = accounts{
	user: func(name string) (uint32, error) {
		if name == "alice" {
			return 1001, nil
		}
		return 0, fmt.Errorf("there is no user %q", name)
	},
	group: func(name string) (uint32, error) {
		switch name {
		case "app":
			return 2001, nil
		case "staff":
			return 50, nil
		}
		return 0, fmt.Errorf("there is no group %q", name)
	},
}

func readTestdata(t testing.TB, name string) []byte {
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGood(t *testing.T) {
	got, err := parse("good.toml", readTestdata(t, "good.toml"), testAccounts)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		StateDir: "/var/lib/kmsbroker", RuntimeDir: "/run/kmsbroker", PluginDir: "/opt/plugins", LogLevel: slog.LevelDebug,
		KMS: KMS{
			Default: Region{Region: "cn-hangzhou", Endpoints: []string{"kms-vpc.cn-hangzhou.aliyuncs.com", "kms.cn-hangzhou.aliyuncs.com"}, CAFile: "/etc/kmsbroker/ca.pem"},
			Others: []Region{{Region: "cn-shanghai"}, {
				Region: "eu-central-1", Endpoints: []string{"kms-vpc.eu-central-1.aliyuncs.com"},
				Instance: Instance{ID: "kst-bjj66", Endpoint: "kst-bjj66.cryptoservice.kms.aliyuncs.com", CAFile: "/etc/kmsbroker/kst.pem"},
			}},
			Quota:       Quota{Crypto: 500, CreateKey: 2},
			Credentials: Credentials{File: "/etc/kmsbroker/credentials.toml"},
		}, Sockets: Sockets{Control: "/run/kmsbroker/admin/control.sock", Application: "/run/app.sock", Metrics: "/run/kmsbroker/m.sock", Alibaba: "/run/ali.sock", PKCS11: "/run/kmsbroker/p11.sock", AdminGID: 50},
		Backends: []Backend{
			{
				Name: "payments-hsm", Plugin: "softhsm", PINFile: "/etc/kmsbroker/payments.pin",
				SHA256:               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
				AllowForeignEndpoint: true, CallTimeout: 5 * time.Second, Settings: map[string]string{"token_label": "payments"},
				Environment: map[string]string{"SOFTHSM2_CONF": "/etc/kmsbroker/softhsm2.conf"},
			},
			{Name: "luna", Plugin: "/usr/lib/luna/plugin", PINFile: "/etc/kmsbroker/luna.pin", CallTimeout: DefaultCallTimeout},
			{Name: "vault", Plugin: "dpod", CallTimeout: DefaultCallTimeout},
		},
		Grants: []authz.Grant{
			{
				Keys: []string{"payments", "app-*"}, Operations: []authz.Operation{authz.Encrypt, authz.Decrypt, authz.GenerateDataKey},
				UIDs: []uint32{1001, 1000}, GIDs: []uint32{2001}, At: "good.toml:45",
			},
			{Keys: []string{"logs"}, Operations: []authz.Operation{authz.Encrypt}, GIDs: []uint32{4294967294}, At: "good.toml:51"},
			{
				Effect: authz.Deny, Keys: []string{"*"}, Operations: []authz.Operation{authz.Decrypt},
				Units: []string{"web@*.service", `escaped\x2dname.service`}, At: "good.toml:56",
			},
			{
				Keys: []string{"tenants"}, Operations: []authz.Operation{authz.Decrypt}, UIDs: []uint32{1000},
				Context: map[string]authz.Template{"tenant": template(t, "{user}"), "purpose": template(t, "mail")},
				Rate:    authz.Rate{Calls: 100, Per: time.Second}, At: "good.toml:62",
			},
			{
				Keys: []string{"shop"}, Operations: []authz.Operation{authz.Encrypt}, Apps: []string{"web", "batch-*"},
				Context: map[string]authz.Template{"app": template(t, "{app}")}, At: "good.toml:70",
			},
		},
		Objects: []authz.ObjectGrant{
			{
				Tokens: []string{"luna", "v*"}, Labels: []string{"tls-*", "a/b", ""}, IDs: []string{"01ab", "02*", ""},
				Operations: []authz.ObjectOperation{authz.ObjectSign, authz.ObjectDecrypt, authz.TokenRandom},
				UIDs:       []uint32{1001}, GIDs: []uint32{50}, Units: []string{"nginx.service"}, Rate: authz.Rate{Calls: 1000, Per: time.Hour},
				PIN: pinHash, At: "good.toml:108",
			},
			{
				Effect: authz.Deny, Tokens: []string{"*"}, Labels: []string{"tls-old"}, Operations: []authz.ObjectOperation{authz.ObjectFind},
				UIDs: []uint32{1000}, At: "good.toml:119",
			},
		},
		Proxy:            Proxy{SessionWait: 3 * time.Second, OperationIdle: 5 * time.Minute, MaxSessions: 16},
		UnitWithoutPIDFD: true,
		Alibaba:          Alibaba{Listen: "192.0.2.1:8765", TLSCert: "/etc/kmsbroker/tls.pem", TLSKey: "/etc/kmsbroker/tls.key"},
		Audit: Audit{
			BeforeAnswer: true, Unrecorded: true, CommitDelay: time.Second, SegmentSize: 8 << 20, SegmentAge: time.Hour, Reserve: 32 << 20,
		},
		Kubernetes: []Kubernetes{
			{Name: "prod", Key: "cluster", Socket: "/run/kmsbroker/kubernetes/prod.sock", Envelope: true}, {Name: "dev", Key: "cluster-dev", Socket: "/run/dev.sock"},
		},
		Tracing:  Tracing{Endpoint: "http://127.0.0.1:4318", OneIn: 100},
		Envelope: Envelope{Age: 10 * time.Minute, Idle: 30 * time.Second, Offline: time.Hour, MaxMessages: 5000, MaxBytes: 2 << 30},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

const pinHash = "pbkdf2-sha256$600000$MDEyMzQ1Njc4OWFiY2RlZg$TdzY9guYviGDDO5e8icB+WQaRBjQTAQUru/wiHazSrU"

func template(t testing.TB, text string) authz.Template {
	t.Helper()
	parsed, err := authz.ParseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

const minimal = "[kms]\nregion = 'cn-hangzhou'\ncredentials_file = '/c'\n"

func TestDefaults(t *testing.T) {
	got, err := parse("minimal.toml", []byte(minimal), testAccounts)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		StateDir: DefaultStateDir, RuntimeDir: DefaultRuntimeDir, PluginDir: DefaultPluginDir, LogLevel: slog.LevelInfo,
		KMS: KMS{Default: Region{Region: "cn-hangzhou"}, Credentials: Credentials{File: "/c"}},
		Sockets: Sockets{
			Control: "/run/kmsbroker/admin/control.sock", Application: "/run/kmsbroker/kms.sock",
			Metrics: "/run/kmsbroker/metrics.sock", Alibaba: "/run/kmsbroker/alibaba.sock", PKCS11: "/run/kmsbroker/pkcs11.sock", AdminGID: -1,
		},
		Proxy: Proxy{SessionWait: DefaultSessionWait, OperationIdle: DefaultOperationIdle, MaxSessions: DefaultMaxSessions},
		Audit: Audit{CommitDelay: DefaultCommitDelay, SegmentSize: 64 << 20, SegmentAge: DefaultSegmentAge, Reserve: 16 << 20},
		Envelope: Envelope{
			Age: DefaultDataKeyAge, Idle: DefaultDataKeyIdle, MaxMessages: defaultMaxMessages, MaxBytes: defaultMaxGiB << 30,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestNoSockets(t *testing.T) {
	got, err := parse("f", []byte(minimal+"[sockets]\nmetrics = ''\npkcs11 = ''\n"), testAccounts)
	if err != nil || got.Sockets.Metrics != "" || got.Sockets.PKCS11 != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestBroken finds everything that is wrong with a badly broken file.
func TestBroken(t *testing.T) {
	_, err := parse("broken.toml", readTestdata(t, "broken.toml"), testAccounts)
	problems, ok := errors.AsType[Problems](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	got := problems.Error() + "\n"
	golden := filepath.Join("testdata", "broken.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(readTestdata(t, "broken.golden")); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if strings.Contains(got, "secret") {
		t.Error("a password is quoted")
	}
}

func TestProblems(t *testing.T) {
	grant := func(text string) string {
		return minimal + "[[grant]]\nkeys = ['k']\noperations = ['encrypt']\nusers = ['alice']\n" + text
	}
	object := func(text string) string {
		return minimal + "[backend.luna]\nplugin = 'luna'\npin = 'prompt'\n[[pkcs11]]\nusers = ['alice']\n" + text
	}
	tests := []struct{ name, file, want string }{
		{"syntax", minimal + "a = = 1\n", "f:4: "},
		{"duplicate key", minimal + "region = 'x'\n", "f:4: "},
		{"duplicate table", minimal + "[kms]\n", "f:4: "},
		{"not UTF-8", "a = 1\nb = '\xff'\n", "f:2: "},
		{"other case", minimal + "Endpoint = 'x'\n", `f:4: unknown key kms.Endpoint; did you mean "endpoint"?`},
		{"nothing near", minimal + "zebra = 'x'\n", "f:4: unknown key kms.zebra"},
		{"unknown section", minimal + "[socket]\n", `f:4: unknown key socket; did you mean "sockets"?`},
		{"dotted", "kms.region = 'cn-hangzhou'\nkms.credentials_file = '/c'\nkms.x = 1\n", "f:3: unknown key kms.x"},
		{"section of another type", "kms = 5\n", "f:1: kms must be a table, not an integer"},
		{"no PIN", minimal + "[backend.hsm]\nplugin = 'softhsm'\n",
			`f:4: backend.hsm needs a PIN: pin_file = "/path", or pin = "prompt" to enter it with "kmsbrokerctl backend login"`},
		{"two PINs", minimal + "[backend.hsm]\nplugin = 'softhsm'\npin = 'prompt'\npin_file = '/pin'\n",
			"f:7: backend.hsm.pin_file and backend.hsm.pin exclude each other"},
		// Whoever writes the PIN there must not find it in a log.
		{"the PIN itself", minimal + "[backend.hsm]\nplugin = 'softhsm'\npin = 'geheim-4711'\n",
			`f:6: backend.hsm.pin can only be "prompt": a PIN does not belong into this file, give the path of one with pin_file`},
		{"the PIN itself as a number", minimal + "[backend.hsm]\nplugin = 'softhsm'\npin = 4711\n",
			`f:6: backend.hsm.pin must be "prompt", not an integer`},
		{"NUL", "state_dir = \"/a\\u0000b\"\n" + minimal, "f:1: state_dir must not contain a NUL character"},
		{"empty path", "state_dir = ''\n" + minimal, `f:1: state_dir must be an absolute path, not ""`},
		{"empty required path", "[kms]\nregion = 'r'\ncredentials_file = ''\n", `f:3: kms.credentials_file must be an absolute path, not ""`},
		{"long socket", minimal + "[sockets]\napplication = '" + strings.Repeat("x", 100) + "'\n",
			"f:5: sockets.application: the socket's path /run/kmsbroker/" + strings.Repeat("x", 100) + " is longer than the 107 bytes that Linux allows"},
		{"one socket twice", minimal + "[sockets]\ncontrol = 'a/../kms.sock'\n", "f:4: sockets.application is the same socket as sockets.control"},
		{"control among others", minimal + "[sockets]\ncontrol = '/x/c'\napplication = '/x/a'\n", "f:5: sockets.control needs a directory of its own, not /x"},
		{"control in runtime_dir", minimal + "[sockets]\ncontrol = 'c'\napplication = '/x/a'\n", "f:5: sockets.control needs a directory of its own, not /run/kmsbroker"},
		{"metrics among others", minimal + "[sockets]\nmetrics = 'admin/m'\n", "f:4: sockets.control needs a directory of its own, not /run/kmsbroker/admin"},
		{"metrics for applications", minimal + "[sockets]\nmetrics = 'kms.sock'\n", "f:5: sockets.metrics is the same socket as sockets.application"},
		{"alibaba for metrics", minimal + "[sockets]\nalibaba = 'metrics.sock'\n", "f:5: sockets.alibaba is the same socket as sockets.metrics"},
		{"alibaba beside control", minimal + "[sockets]\nalibaba = 'admin/a.sock'\n", "f:4: sockets.control needs a directory of its own, not /run/kmsbroker/admin"},
		{"PKCS#11 for applications", minimal + "[sockets]\npkcs11 = 'kms.sock'\n", "f:5: sockets.pkcs11 is the same socket as sockets.application"},
		{"PKCS#11 beside control", minimal + "[sockets]\npkcs11 = 'admin/p.sock'\n", "f:4: sockets.control needs a directory of its own, not /run/kmsbroker/admin"},
		{"group of one on objects", minimal + "[pkcs11]\nlabels = ['k']\n", "f:4: pkcs11 must be a list: write [[pkcs11]]"},
		{"slip in a token", object("tokens = ['lunaa']\nlabels = ['*']\noperations = ['sign']\n"), `f:9: pkcs11[1].tokens: there is no [backend.lunaa]; did you mean "luna"?`},
		{"token that is not there", object("tokens = ['payments']\nlabels = ['*']\noperations = ['sign']\n"), `f:9: pkcs11[1].tokens: there is no [backend.payments]: there are luna`},
		{"operations on keys", object("tokens = ['luna']\nlabels = ['*']\noperations = ['generate-data-key']\n"),
			`f:11: pkcs11[1].operations: unknown operation "generate-data-key": there are find, sign, verify, encrypt, decrypt, wrap, export, unwrap, derive, digest-key, generate, create, copy, modify, destroy, random, digest`},
		{"about no objects", object("tokens = ['luna']\noperations = ['random', 'sign']\n"), `f:7: pkcs11[1] is about no objects, and sign needs some: give labels or ids; labels = ["*"] is all of them`},
		{"about the token", object("tokens = ['luna']\nids = ['01']\noperations = ['random']\n"), `f:7: pkcs11[1] has labels or ids, and random is about the whole token: leave them out`},
		{"id with colons", object("tokens = ['luna']\nids = ['01:aB']\noperations = ['sign']\n"), `f:10: pkcs11[1].ids: "01:aB" must be of the digits 0-9 and a-f alone: "01ab"`},
		{"half an id", object("tokens = ['luna']\nids = ['01a']\noperations = ['sign']\n"), `f:10: pkcs11[1].ids: "01a" ends within a byte, each of which has two digits`},
		{"PIN of what is denied", object("tokens = ['luna']\nids = ['01']\noperations = ['sign']\neffect = 'deny'\npin = '" + pinHash + "'\n"),
			"f:13: pkcs11[1].pin limits what a grant allows, and this one denies"},
		{"a PIN instead of its hash", object("tokens = ['luna']\nids = ['01']\noperations = ['sign']\npin = 'geheim-4711'\n"),
			`f:12: pkcs11[1].pin is no hash of a PIN: it is not of the form "pbkdf2-sha256$ITERATIONS$SALT$HASH" that "kmsbrokerctl policy hash-pin" prints`},
		{"applications on objects", object("tokens = ['luna']\nids = ['01']\noperations = ['sign']\napps = ['web']\n"),
			"f:12: pkcs11[1].apps: applications with an access key do not speak PKCS#11; grant to users, groups or units"},
		{"no sessions at all", minimal + "[proxy]\nmax_sessions = 0\n", "f:5: proxy.max_sessions must be 1 to 65536, not 0"},
		{"kubernetes for applications", minimal + "[kubernetes.a]\nkey = 'k'\nsocket = 'kms.sock'\n", "f:6: kubernetes.a.socket is the same socket as sockets.application"},
		{"kubernetes beside control", minimal + "[kubernetes.a]\nkey = 'k'\nsocket = 'admin/k.sock'\n", "f:1: sockets.control needs a directory of its own, not /run/kmsbroker/admin"},
		{"clusters on one socket", minimal + "[kubernetes.b]\nkey = 'k'\n[kubernetes.a]\nkey = 'k'\nsocket = 'kubernetes/b.sock'\n",
			"f:8: kubernetes.a.socket is the same socket as kubernetes.b.socket"},
		{"traces to nowhere", minimal + "[tracing]\nendpoint = '127.0.0.1:4318'\n", "f:5: tracing.endpoint must be a URL such as \"http://127.0.0.1:4318\", without a user, a path or a query"},
		{"traces with a secret", minimal + "[tracing]\nendpoint = 'http://u:p@h'\n", "f:5: tracing.endpoint must be a URL such as \"http://127.0.0.1:4318\", without a user, a path or a query"},
		{"metrics of a number", minimal + "[sockets]\nmetrics = 5\n", "f:5: sockets.metrics must be a string, not an integer"},
		{"socket is a directory", minimal + "[sockets]\ncontrol = '.'\n", `f:5: sockets.control must be a path below runtime_dir or an absolute path, not "."`},
		{"no identity", "[kms]\nregion = 'cn-hangzhou'\n", "f:1: kms.credentials_file is missing, or one of kms.ecs_role and kms.oidc instead"},
		{"two identities", minimal + "ecs_role = {}\n", "f:1: only one of kms.credentials_file, kms.ecs_role and kms.oidc may be given"},
		{"role on OIDC", "[kms]\nregion = 'cn-hangzhou'\noidc = { provider_arn = 'p', token_file = '/t', role_arn = 'r' }\nrole = { role_arn = 'r' }\n",
			"f:4: kms.role cannot stand on kms.oidc: name the role there"},
		{"role without a name", minimal + "role = {}\n", "f:4: kms.role.role_arn is missing"},
		{"short session", minimal + "role = { role_arn = 'r', session_duration = '1s' }\n",
			`f:4: kms.role.session_duration must be a time between 15m0s and 12h0m0s such as "30s", not "1s"`},
		{"bad address of STS", minimal + "sts_endpoint = 'ftp://x'\n", "f:4: kms.sts_endpoint: "},
		{"endpoint of a number", minimal + "endpoint = ['kms.cn-hangzhou.aliyuncs.com', 5]\n", "f:4: kms.endpoint must be a string or an array of strings"},
		{"default region again", minimal + "[kms.regions.cn-hangzhou]\n", "f:4: kms.regions.cn-hangzhou is the default region, which is set in [kms] itself"},
		{"not a region", minimal + "[kms.regions.MARS]\n", "f:4: kms.regions.MARS: "},
		{"typo in a region", minimal + "[kms.regions.cn-shanghai]\nendpont = 'x'\n", `f:5: unknown key kms.regions.cn-shanghai.endpont; did you mean "endpoint"?`},
		{"instance without a name", minimal + "instance = { ca_file = '/c' }\n", "f:4: kms.instance.id is missing"},
		{"instance without an authority", minimal + "instance = { id = 'kst-1' }\n", "f:4: kms.instance.ca_file is missing"},
		{"instance without TLS", minimal + "instance = { id = 'kst-1', ca_file = '/c', endpoint = 'http://x' }\n",
			"f:4: kms.instance.endpoint: plaintexts would go to http://x without TLS"},
		{"bad name of an instance", minimal + "instance = { id = 'a.b', ca_file = '/c' }\n", "f:4: kms.instance.id: "},
		{"no calls at all", minimal + "quota = { crypto = 0 }\n", "f:4: kms.quota.crypto must be 1 to 100000 calls a second, not 0"},
		{"unknown quota", minimal + "quota = { writs = 1 }\n", `f:4: unknown key kms.quota.writs; did you mean "writes"?`},
		{"group of one", minimal + "[grant]\nkeys = ['k']\n", "f:4: grant must be a list: write [[grant]]"},
		{"grant of numbers", "grant = [\n1]\n" + minimal, "f:1: grant must be a list of tables, not of an integer"},
		{"inline grants", "grant = [{keys = ['k'], operations = ['encrypt'], users = ['alice']},\n{keys = ['k'], operations = ['encrypt'], users = ['bob']}]\n" + minimal,
			`f:2: grant[2].users: there is no user "bob"`},
		{"third grant", grant("[[grant]]\nkeys = ['k']\noperations = ['encrypt']\nusers = [0]\n[[grant]]\nkeys = ['k']\noperations = ['encrypt']\nusers = [0]\ngruops = []\n"),
			`f:16: unknown key grant[3].gruops; did you mean "groups"?`},
		{"table in a grant", grant("[grant.more]\nx = 1\n"), "f:8: unknown key grant[1].more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse("f", []byte(tt.file), testAccounts)
			if err == nil {
				t.Fatal("accepted")
			}
			if got := err.Error(); strings.HasSuffix(tt.want, ": ") && !strings.HasPrefix(got, tt.want) ||
				!strings.HasSuffix(tt.want, ": ") && got != tt.want || strings.Contains(got, "\n") {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kmsbroker.toml")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(path, []byte(minimal+"[[grant]]\nkeys = ['k']\noperations = ['encrypt']\nusers = ['root']\ngroups = ['root']\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Grants[0].UIDs[0] != 0 || c.Grants[0].GIDs[0] != 0 {
		t.Errorf("root is %+v", c.Grants[0])
	}
	if err := os.WriteFile(path, []byte(minimal+"[[grant]]\nusers = ['no-such-user']\ngroups = ['no-such-group']\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(path); err == nil || strings.Count(err.Error(), path+":") != 4 {
		t.Errorf("got %v, want four problems", err)
	}
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestEditDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"region", "region", 0}, {"reigon", "region", 1}, {"decript", "decrypt", 1}, {"kitten", "sitting", 3},
	} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("%s to %s: got %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// FuzzParse: any bytes give a complete configuration or problems with lines.
func FuzzParse(f *testing.F) {
	f.Add(readTestdata(f, "good.toml"))
	f.Add(readTestdata(f, "broken.toml"))
	f.Add([]byte(minimal))
	f.Add([]byte("a = [[[{b.c = [1,\n[2]]}]]]\n[[x.y]]\n[x.y.z]\n[[x.y]]\n"))
	f.Add([]byte("[[grant]]\n[[grant.keys]]\n'' = 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("f", data, testAccounts)
		if err == nil {
			if (c.KMS.Default.Region == "") != (len(c.KMS.AllRegions()) == 0) || !filepath.IsAbs(c.Sockets.Control) {
				t.Errorf("incomplete: %+v", c)
			}
			return
		}
		problems, ok := errors.AsType[Problems](err)
		if !ok || len(problems) == 0 {
			t.Fatalf("got %v", err)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Line > 1+strings.Count(string(data), "\n") || p.Message == "" {
				t.Errorf("line %d in %q: %s", p.Line, data, p.Message)
			}
		}
	})
}

// TestNothing: what a package installs has nothing in it, and is in order.
func TestNothing(t *testing.T) {
	got, err := parse("empty.toml", nil, testAccounts)
	if err != nil || len(got.KMS.AllRegions()) != 0 || len(got.Backends) != 0 || got.StateDir != DefaultStateDir {
		t.Errorf("%+v, %v", got, err)
	}
}
