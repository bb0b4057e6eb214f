package wire_test

import (
	"crypto/tls"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

func TestParsePlacement(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	want := map[string]string{"KeyId": "k 1", "Plaintext": "YQ==", "RegionId": "r"}
	tests := map[string]struct{ method, query, contentType, body string }{
		"GET query":      {"GET", "Action=Encrypt&Version=v&KeyId=k+1&Plaintext=YQ%3D%3D&RegionId=r&Format=XML", "", ""},
		"POST query":     {"POST", "Action=Encrypt&Version=v&KeyId=k%201&Plaintext=YQ%3D%3D&RegionId=r", "application/json", ""},
		"POST form":      {"POST", "", form + "; charset=utf-8", "Action=Encrypt&Version=v&KeyId=k+1&Plaintext=YQ%3D%3D&RegionId=r"},
		"query and form": {"POST", "Action=Encrypt&Version=v&RegionId=r", form, "KeyId=k+1&Plaintext=YQ%3D%3D"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			hr := httptest.NewRequest(tt.method, "http://h:1/?"+tt.query, strings.NewReader(tt.body))
			hr.Header.Set("Content-Type", tt.contentType)
			r, err := wire.Parse(hr)
			if err != nil {
				t.Fatal(err)
			}
			if r.Action != "Encrypt" || r.Version != "v" || r.Region != "r" || r.Host != "h:1" || r.Scheme != wire.Unsigned {
				t.Errorf("got %+v", r)
			}
			if !maps.Equal(r.Params, want) {
				t.Errorf("Params = %v, want %v", r.Params, want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	big := strings.Repeat("a", wire.MaxBody)
	tests := map[string]struct{ method, target, contentType, body, code string }{
		"method":            {"PUT", "/?Action=A&Version=1", "", "", "UnsupportedHTTPMethod"},
		"path":              {"GET", "/keys?Action=A&Version=1", "", "", "InvalidAction.NotFound"},
		"no action":         {"GET", "/?Version=1", "", "", "MissingParameter"},
		"no version":        {"GET", "/?Action=A", "", "", "MissingParameter"},
		"twice in query":    {"GET", "/?Action=A&Version=1&KeyId=a&KeyId=a", "", "", "ParseRequestParameterException"},
		"twice in body":     {"POST", "/?Action=A&Version=1", form, "KeyId=a&KeyId=b", "ParseRequestParameterException"},
		"in query and body": {"POST", "/?Action=A&Version=1&KeyId=a", form, "KeyId=a", "ParseRequestParameterException"},
		"bad escape":        {"GET", "/?Action=A&Version=1&KeyId=%zz", "", "", "ParseRequestParameterException"},
		"semicolon":         {"GET", "/?Action=A&Version=1;KeyId=a", "", "", "ParseRequestParameterException"},
		"not UTF-8":         {"GET", "/?Action=A&Version=1&KeyId=%ff", "", "", "ParseRequestParameterException"},
		"JSON body":         {"POST", "/?Action=A&Version=1", "application/json", "{}", "ParseRequestParameterException"},
		"large body":        {"POST", "/?Action=A&Version=1", form, "K=" + big, "RequestEntityTooLarge"},
		"large query":       {"GET", "/?Action=A&Version=1&K=" + big, "", "", "RequestEntityTooLarge"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			hr := httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body))
			hr.Header.Set("Content-Type", tt.contentType)
			r, err := wire.Parse(hr)
			checkRefused(t, err, tt.code)
			if r == nil || r.ID == "" || r.Host == "" {
				t.Errorf("request %+v cannot be answered", r)
			}
		})
	}
}

func TestWhereARequestComesFrom(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8::1]:1": "2001:db8::1", "@": "invalid IP", "": "invalid IP",
	} {
		for _, secure := range []bool{false, true} {
			hr := httptest.NewRequest(http.MethodGet, "/?Action=Encrypt&Version=2016-01-20", nil)
			hr.RemoteAddr = remote
			if secure {
				hr.TLS = &tls.ConnectionState{}
			}
			r, err := wire.Parse(hr)
			if err != nil || r.Source.String() != want || r.Secure != secure {
				t.Errorf("%q: source %s, secure %t, %v", remote, r.Source, r.Secure, err)
			}
		}
	}
}

func TestSchemeIsToldByAuthorization(t *testing.T) {
	now := time.Now()
	signed := rpcParams(now, "n")
	signed.Del("RegionId")
	rpc := httptest.NewRequest(http.MethodGet, "/?"+signed.Encode(), nil)
	// SDKs that sign with RPC v1 send these all the same.
	rpc.Header.Set("X-Acs-Action", "DescribeRegions")
	rpc.Header.Set("X-Acs-Version", "1999-09-09")
	rpc.Header.Set("X-Acs-Region-Id", "elsewhere")
	r, err := wire.Parse(rpc)
	if err != nil {
		t.Fatal(err)
	}
	if r.Scheme != wire.RPC || r.Action != "Encrypt" || r.Version != "2016-01-20" || r.Region != "" || r.AccessKeyID != testKey {
		t.Errorf("RPC v1 request read as %+v", r)
	}

	acs := acs3Call{method: http.MethodGet, query: "Action=Decrypt&KeyId=k", extra: map[string]string{"x-acs-region-id": "cn-x"}}
	r, err = wire.Parse(acs.request(now, "n"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Scheme != wire.ACS3 || r.Action != "Encrypt" || r.Region != "cn-x" || r.Nonce != "n" || r.AccessKeyID != testKey {
		t.Errorf("ACS3 request read as %+v", r)
	}
	if _, ok := r.Params["Action"]; ok {
		t.Error("a parameter of the protocol reached the operation")
	}
}
