package system

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/credentials"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

const (
	ramVersion = "2015-05-01"
	stsVersion = "2015-04-01"
)

// params are the parameters of a call.
type params map[string]string

// administer calls RAM or STS, by the version of its API, as the root.
func administer(t *testing.T, s *stage.Stage, version, action string, p params) map[string]any {
	t.Helper()
	root, err := sdk.NewClientWithOptions(stage.Region, sdk.NewConfig(), credentials.NewAccessKeyCredential(stage.AccessKeyID, stage.AccessKeySecret))
	if err != nil {
		t.Fatal(err)
	}
	req := requests.NewCommonRequest()
	req.Domain, req.Scheme = strings.TrimPrefix(s.EndpointURL(), "http://"), "http"
	req.Version, req.ApiName, req.QueryParams = version, action, p
	resp, err := root.ProcessCommonRequest(req)
	if err != nil {
		t.Fatalf("%s: %v", action, err)
	}
	var answer map[string]any
	if err := json.Unmarshal(resp.GetHttpContentBytes(), &answer); err != nil {
		t.Fatalf("%s: %v", action, err)
	}
	return answer
}

const (
	allowKMS    = `{"Version":"1","Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"*"}]}`
	allowAssume = `{"Version":"1","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}]}`
)

// newUser makes a RAM user with a policy and an AccessKey.
func newUser(t *testing.T, s *stage.Stage, name, policy string) kmsapi.Credentials {
	t.Helper()
	administer(t, s, ramVersion, "CreateUser", params{"UserName": name})
	administer(t, s, ramVersion, "CreatePolicy", params{"PolicyName": name, "PolicyDocument": policy})
	administer(t, s, ramVersion, "AttachPolicyToUser", params{"PolicyType": "Custom", "PolicyName": name, "UserName": name})
	return newAccessKey(t, s, name)
}

func newAccessKey(t *testing.T, s *stage.Stage, user string) kmsapi.Credentials {
	t.Helper()
	key := administer(t, s, ramVersion, "CreateAccessKey", params{"UserName": user})["AccessKey"].(map[string]any)
	return kmsapi.Credentials{AccessKeyID: key["AccessKeyId"].(string), AccessKeySecret: key["AccessKeySecret"].(string)}
}

// newRole makes a role that may do everything in KMS and that trusts whom a
// statement without its effect and action names.
func newRole(t *testing.T, s *stage.Stage, name, trust string) (arn string) {
	t.Helper()
	administer(t, s, ramVersion, "CreateRole", params{
		"RoleName":                 name,
		"AssumeRolePolicyDocument": `{"Version":"1","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole",` + trust + `}]}`,
	})
	administer(t, s, ramVersion, "CreatePolicy", params{"PolicyName": name, "PolicyDocument": allowKMS})
	administer(t, s, ramVersion, "AttachPolicyToRole", params{"PolicyType": "Custom", "PolicyName": name, "RoleName": name})
	return "acs:ram::1000000000000001:role/" + name
}

// signers notes who signs the requests to KMS.
type signers struct {
	mu  sync.Mutex
	all []string // AccessKey IDs, in the order of their first request
}

func watchSigners(t *testing.T, s *stage.Stage) *signers {
	t.Helper()
	seen := &signers{}
	s.Intercept(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Header.Get("X-Acs-Version") != kmsapi.APIVersion {
			return true
		}
		id := formOf(t, r).Get("AccessKeyId")
		seen.mu.Lock()
		defer seen.mu.Unlock()
		if !slices.Contains(seen.all, id) {
			seen.all = append(seen.all, id)
		}
		return true
	})
	return seen
}

// list returns them.
func (s *signers) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// temporary reports that all who signed did so with credentials of STS, and that
// somebody did.
func (s *signers) temporary() bool {
	all := s.list()
	return len(all) > 0 && !slices.ContainsFunc(all, func(id string) bool { return !strings.HasPrefix(id, "STS.") })
}

// clock is true time, moved by what the test says.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *clock) set(offset time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = offset
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}
