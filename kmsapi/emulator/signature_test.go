package emulator_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdkerrors "github.com/aliyun/alibaba-cloud-sdk-go/sdk/errors"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

func TestSDKWithWrongCredentials(t *testing.T) {
	f := start(t, emulator.Config{})
	describe := func(id, secret string) error {
		client, err := kms.NewClientWithAccessKey("cn-hangzhou", id, secret)
		if err != nil {
			t.Fatal(err)
		}
		client.Domain = f.host
		_, err = client.DescribeRegions(kms.CreateDescribeRegionsRequest())
		return err
	}
	err := describe(rootID, "wrong")
	checkSDK(t, err, 400, "SignatureDoesNotMatch")
	// The SDK says so only when the server quotes the very string it signed.
	if e, ok := err.(*sdkerrors.ServerError); !ok || !strings.HasPrefix(e.Recommend(), "InvalidAccessKeySecret") { //nolint:errorlint // what the SDK returns
		t.Errorf("the SDK does not see that the secret is wrong: %v", err)
	}
	checkSDK(t, describe("LTAIother", rootSecret), 404, "InvalidAccessKeyId.NotFound")
}

// TestRPCRejections sends requests that the SDK has signed, again and changed.
func TestRPCRejections(t *testing.T) {
	f := start(t, emulator.Config{})
	recorder := recordRequest(t)
	client := f.client("cn-hangzhou")
	client.Domain = recorder.host
	r := kms.CreateDescribeKeyRequest()
	r.KeyId = "alias/x"
	_, err := client.DescribeKey(r)
	if err == nil {
		t.Fatal("the recorder answered")
	}
	send := func(change func(string) string) answer {
		hr, err := http.NewRequestWithContext(t.Context(), recorder.method, "http://"+f.host+"/?"+change(recorder.query), nil)
		if err != nil {
			t.Fatal(err)
		}
		return f.send(hr)
	}
	same := func(q string) string { return q }
	without := func(name string) func(string) string {
		return func(q string) string {
			kept := strings.Split(q, "&")
			for i, pair := range kept {
				if strings.HasPrefix(pair, name+"=") {
					return strings.Join(append(kept[:i:i], kept[i+1:]...), "&")
				}
			}
			t.Fatalf("the SDK sends no %s", name)
			return ""
		}
	}
	for _, tt := range []struct {
		name   string
		change func(string) string
		status int
		code   string
	}{
		{"changed", func(q string) string { return strings.Replace(q, "alias%2Fx", "alias%2Fy", 1) }, 400, "SignatureDoesNotMatch"},
		{"no signature", without("Signature"), 400, "MissingParameter"},
		{"no nonce", without("SignatureNonce"), 400, "MissingParameter"},
		{"no timestamp", without("Timestamp"), 400, "MissingParameter"},
		{"no action", without("Action"), 400, "MissingParameter"},
		{"given twice", func(q string) string { return q + "&KeyId=alias%2Fx" }, 400, "ParseRequestParameterException"},
		{"as signed", same, 404, "Forbidden.AliasNotFound"},
		{"replayed", same, 400, "SignatureNonceUsed"},
	} {
		if a := send(tt.change); a.status != tt.status || a.code() != tt.code {
			t.Errorf("%s: %d %v, want %d %s", tt.name, a.status, a.body, tt.status, tt.code)
		}
	}
}

// recorder is a server that keeps the request that it was sent.
type recorder struct{ host, method, query string }

func recordRequest(t *testing.T) *recorder {
	t.Helper()
	rec := &recorder{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec.method, rec.query = r.Method, r.URL.RawQuery
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(web.Close)
	rec.host = web.Listener.Addr().String()
	return rec
}

func TestACS3Rejections(t *testing.T) {
	f := start(t, emulator.Config{})
	now := time.Now()
	for _, tt := range []struct {
		name string
		sent func() *http.Request
		code string
	}{
		{"stale", func() *http.Request {
			r := f.request("DescribeRegions", nil)
			f.sign(r, now.Add(-16*time.Minute))
			return r
		}, "InvalidTimeStamp.Expired"},
		{"from the future", func() *http.Request {
			r := f.request("DescribeRegions", nil)
			f.sign(r, now.Add(16*time.Minute))
			return r
		}, "InvalidTimeStamp.Expired"},
		{"before the start", func() *http.Request {
			r := f.request("DescribeRegions", nil)
			f.sign(r, now.Add(-time.Minute))
			return r
		}, "InvalidTimeStamp.Expired"},
		{"tampered body", func() *http.Request {
			r := f.request("DescribeKey", params{"KeyId": "a"})
			f.sign(r, now)
			r.Body = io.NopCloser(strings.NewReader("KeyId=b"))
			return r
		}, "SignatureDoesNotMatch"},
		{"unsigned region", func() *http.Request {
			r := f.request("DescribeRegions", nil)
			f.sign(r, now)
			r.Header.Set("X-Acs-Region-Id", "cn-shanghai")
			return r
		}, "IncompleteSignature"},
		{"unsigned action", func() *http.Request {
			r := f.request("DescribeRegions", nil)
			r.Header.Del("X-Acs-Action")
			f.sign(r, now)
			r.Header.Set("X-Acs-Action", "DescribeRegions")
			return r
		}, "IncompleteSignature"},
		{"security token of nobody", func() *http.Request {
			r := f.request("DescribeRegions", nil)
			r.Header.Set("X-Acs-Security-Token", "t")
			f.sign(r, now)
			return r
		}, "InvalidSecurityToken.MismatchWithAccessKey"},
		{"no algorithm", func() *http.Request {
			r := f.request("DescribeRegions", nil)
			r.Header.Set("Authorization", "Credential=,Signature=")
			return r
		}, "IncompleteSignature"},
		{"unsigned", func() *http.Request { return f.request("DescribeRegions", nil) }, "MissingParameter"},
		{"other version", func() *http.Request {
			r := f.request("DescribeRegions", nil)
			r.Header.Set("X-Acs-Version", "2014-05-26")
			f.sign(r, now)
			return r
		}, "InvalidVersion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if a := f.send(tt.sent()); a.status != http.StatusBadRequest || a.code() != tt.code {
				t.Errorf("answered %d %v, want %s", a.status, a.body, tt.code)
			}
		})
	}

	r := f.request("DescribeRegions", nil)
	f.sign(r, now)
	again := r.Clone(t.Context())
	if a := f.send(r); a.status != http.StatusOK {
		t.Errorf("answered %v", a.body)
	}
	again.Body = http.NoBody
	if a := f.send(again); a.code() != "SignatureNonceUsed" {
		t.Errorf("a replay is answered %v", a.body)
	}
}

func TestRegions(t *testing.T) {
	f := start(t, emulator.Config{})
	in := func(host, param, header string) answer {
		p := params{}
		if param != "" {
			p["RegionId"] = param
		}
		r := f.request("CreateKey", p)
		if host != "" {
			r.Host = host
		}
		if header != "" {
			r.Header.Set("X-Acs-Region-Id", header)
		}
		f.sign(r, time.Now())
		return f.send(r)
	}
	for _, tt := range []struct{ host, param, header, want string }{
		{"", "", "", "cn-hangzhou"},
		{"", "cn-shanghai", "", "cn-shanghai"},
		{"", "", "cn-shanghai", "cn-shanghai"},
		{"kms.cn-shanghai.aliyuncs.com", "", "", "cn-shanghai"},
		{"kms-vpc.cn-shanghai.aliyuncs.com:443", "cn-hangzhou", "", "cn-shanghai"},
		{"kms.aliyuncs.com", "cn-shanghai", "", "cn-shanghai"},
		{"kms.cn-beijing.aliyuncs.com", "", "", ""},
		{"", "cn-beijing", "", ""},
	} {
		a := in(tt.host, tt.param, tt.header)
		if tt.want == "" {
			if a.status != 404 || a.code() != "InvalidRegionId.NotFound" {
				t.Errorf("%v: answered %d %v", tt, a.status, a.body)
			}
			continue
		}
		if arn := a.text("KeyMetadata", "Arn"); !strings.HasPrefix(arn, "acs:kms:"+tt.want+":") {
			t.Errorf("%v: made %s", tt, arn)
		}
	}
}
