package emulator_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdkerrors "github.com/aliyun/alibaba-cloud-sdk-go/sdk/errors"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
	"github.com/google/uuid"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

const (
	rootID     = "LTAIroot"
	rootSecret = "root-secret"
	timeLayout = "2006-01-02T15:04:05Z"
)

// fakeClock is moved by the test alone.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *fakeClock { return &fakeClock{now: time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)} }

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is a running emulator and two ways to call it: call with a signer of
// its own (ACS3), and the SDK (RPC v1).
type fixture struct {
	t      *testing.T
	server *emulator.Server
	host   string // 127.0.0.1:PORT
	clock  *fakeClock
	who    caller // root unless as made it another
}

// caller is an AccessKey and, of a role, its security token.
type caller struct{ id, secret, token string }

var rootCaller = caller{id: rootID, secret: rootSecret}

// as is the fixture in the hands of another caller.
func (f *fixture) as(who caller) *fixture {
	other := *f
	other.who = who
	return &other
}

// start runs an emulator with the defaults that cfg leaves open.
func start(t *testing.T, cfg emulator.Config) *fixture {
	t.Helper()
	clock := newClock()
	if cfg.Clock == nil {
		cfg.Clock = clock.Now
	}
	if cfg.Regions == nil {
		cfg.Regions = []string{"cn-hangzhou", "cn-shanghai"}
	}
	cfg.AccessKeyID, cfg.AccessKeySecret = rootID, rootSecret
	s, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	t.Cleanup(func() {
		web.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fixture{t: t, server: s, host: web.Listener.Addr().String(), clock: clock, who: rootCaller}
}

// client returns an SDK client of its own: SDK clients race with themselves.
func (f *fixture) client(region string) *kms.Client {
	f.t.Helper()
	client, err := kms.NewClientWithAccessKey(region, rootID, rootSecret)
	if err != nil {
		f.t.Fatal(err)
	}
	client.Domain = f.host
	return client
}

// params are the parameters of a call.
type params map[string]string

// answer is what came back.
type answer struct {
	status int
	body   map[string]any
}

func (a answer) code() string { s, _ := a.body["Code"].(string); return s }

// text returns the string at a path of names in the body.
func (a answer) text(path ...string) string {
	var v any = a.body
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	s, _ := v.(string)
	return s
}

// list returns the array at a path of two names.
func (a answer) list(outer, inner string) []any {
	m, _ := a.body[outer].(map[string]any)
	l, _ := m[inner].([]any)
	return l
}

// call makes a call in the default region.
func (f *fixture) call(action string, p params) answer {
	f.t.Helper()
	r := f.request(action, p)
	f.sign(r, time.Now())
	return f.send(r)
}

// service makes a call to RAM or STS, by the version of its API, that has to
// work.
func (f *fixture) service(version, action string, p params) answer {
	f.t.Helper()
	a := f.tryService(version, action, p)
	if a.status != http.StatusOK {
		f.t.Fatalf("%s: %d %v", action, a.status, a.body)
	}
	return a
}

func (f *fixture) tryService(version, action string, p params) answer {
	f.t.Helper()
	r := f.request(action, p)
	r.Header.Set("X-Acs-Version", version)
	f.sign(r, time.Now())
	return f.send(r)
}

const (
	ramVersion = "2015-05-01"
	stsVersion = "2015-04-01"
)

// newUser makes a user with one policy, around statements in JSON, and one
// AccessKey.
func (f *fixture) newUser(name, statements string) caller {
	f.t.Helper()
	f.service(ramVersion, "CreateUser", params{"UserName": name})
	f.service(ramVersion, "CreatePolicy", params{"PolicyName": "of-" + name, "PolicyDocument": `{"Version":"1","Statement":[` + statements + `]}`})
	f.service(ramVersion, "AttachPolicyToUser", params{"PolicyType": "Custom", "PolicyName": "of-" + name, "UserName": name})
	a := f.service(ramVersion, "CreateAccessKey", params{"UserName": name})
	return caller{id: a.text("AccessKey", "AccessKeyId"), secret: a.text("AccessKey", "AccessKeySecret")}
}

// ok is call for calls that have to work.
func (f *fixture) ok(action string, p params) answer {
	f.t.Helper()
	a := f.call(action, p)
	if a.status != http.StatusOK {
		f.t.Fatalf("%s %v: %d %v", action, slices.Sorted(maps.Keys(p)), a.status, a.body)
	}
	return a
}

// refused is call for calls that have to fail.
func (f *fixture) refused(status int, code, action string, p params) answer {
	f.t.Helper()
	a := f.call(action, p)
	if a.status != status || a.code() != code {
		f.t.Errorf("%s answered %d %v, want %d %s", action, a.status, a.body, status, code)
	}
	return a
}

// request is an ACS3 request that is still to be signed.
func (f *fixture) request(action string, p params) *http.Request {
	form := url.Values{}
	for name, value := range p {
		form.Set(name, value)
	}
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, "http://"+f.host+"/", strings.NewReader(form.Encode()))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-Acs-Action", action)
	r.Header.Set("X-Acs-Version", "2016-01-20")
	r.Header.Set("X-Acs-Signature-Nonce", uuid.NewString())
	return r
}

// sign signs as ACS3 does, all headers that the request has.
func (f *fixture) sign(r *http.Request, at time.Time) {
	f.t.Helper()
	var body []byte
	if r.GetBody != nil {
		reader, err := r.GetBody()
		if err != nil {
			f.t.Fatal(err)
		}
		if body, err = io.ReadAll(reader); err != nil {
			f.t.Fatal(err)
		}
	}
	if f.who.token != "" {
		r.Header.Set("X-Acs-Security-Token", f.who.token)
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	r.Header.Set("X-Acs-Content-Sha256", hash)
	r.Header.Set("X-Acs-Date", at.UTC().Format(timeLayout))
	names, lines := []string{"host"}, ""
	for name := range r.Header {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	for _, name := range names {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		lines += name + ":" + value + "\n"
	}
	signed := strings.Join(names, ";")
	canonical := sha256.Sum256([]byte(r.Method + "\n/\n" + r.URL.RawQuery + "\n" + lines + "\n" + signed + "\n" + hash))
	mac := hmac.New(sha256.New, []byte(f.who.secret))
	fmt.Fprintf(mac, "ACS3-HMAC-SHA256\n%x", canonical)
	r.Header.Set("Authorization", fmt.Sprintf("ACS3-HMAC-SHA256 Credential=%s,SignedHeaders=%s,Signature=%x", f.who.id, signed, mac.Sum(nil)))
}

func (f *fixture) send(r *http.Request) answer {
	f.t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode}
	if err := json.NewDecoder(response.Body).Decode(&a.body); err != nil {
		f.t.Fatalf("answer is not JSON: %v", err)
	}
	if id := response.Header.Get("X-Acs-Request-Id"); id == "" || id != a.text("RequestId") {
		f.t.Errorf("request id %q in the header, %q in the body", id, a.text("RequestId"))
	}
	return a
}

// newKey makes a key and returns its ID.
func (f *fixture) newKey(origin string) string {
	f.t.Helper()
	return f.ok("CreateKey", params{"Origin": origin}).text("KeyMetadata", "KeyId")
}

func (f *fixture) keyState(id string) string {
	f.t.Helper()
	return f.ok("DescribeKey", params{"KeyId": id}).text("KeyMetadata", "KeyState")
}

// encrypt returns a ciphertext blob.
func (f *fixture) encrypt(id, text string) string {
	f.t.Helper()
	return f.ok("Encrypt", params{"KeyId": id, "Plaintext": b64(text)}).text("CiphertextBlob")
}

func b64[T string | []byte](data T) string { return base64.StdEncoding.EncodeToString([]byte(data)) }

// checkSDK compares the code and status of an error of the SDK.
func checkSDK(t *testing.T, err error, status int, code string) {
	t.Helper()
	e, ok := err.(*sdkerrors.ServerError) //nolint:errorlint // what the SDK returns
	if !ok || e.HttpStatus() != status || e.ErrorCode() != code {
		t.Errorf("got %v, want %d %s", err, status, code)
	}
}
