package wire_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 700e6, time.UTC)

// newVerifier returns a verifier started at start whose clock reads now.
func newVerifier(now time.Time) *wire.Verifier {
	clock := start
	v := wire.NewVerifier(wire.VerifierConfig{
		Secrets: secrets{testKey: testSecret}, Now: func() time.Time { return clock }, QuoteStringToSign: true,
	})
	clock = now
	return v
}

func verify(t *testing.T, v *wire.Verifier, hr *http.Request) error {
	t.Helper()
	r, err := wire.Parse(hr)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	return v.Verify(r)
}

func TestVerifyRPC(t *testing.T) {
	now := start.Add(time.Hour)
	tests := map[string]struct {
		method string
		change func(url.Values) // before signing
		tamper func(url.Values) // after signing
		code   string
	}{
		"GET":                  {method: "GET"},
		"POST":                 {method: "POST"},
		"tampered parameter":   {method: "POST", tamper: func(p url.Values) { p.Set("KeyId", "other") }, code: "SignatureDoesNotMatch"},
		"added parameter":      {method: "POST", tamper: func(p url.Values) { p.Set("DryRun", "true") }, code: "SignatureDoesNotMatch"},
		"no signature":         {method: "GET", tamper: func(p url.Values) { p.Del("Signature") }, code: "MissingParameter"},
		"no access key":        {method: "GET", change: func(p url.Values) { p.Del("AccessKeyId") }, code: "MissingParameter"},
		"no nonce":             {method: "GET", change: func(p url.Values) { p.Del("SignatureNonce") }, code: "MissingParameter"},
		"no timestamp":         {method: "GET", change: func(p url.Values) { p.Del("Timestamp") }, code: "MissingParameter"},
		"unknown access key":   {method: "GET", change: func(p url.Values) { p.Set("AccessKeyId", "LTAIother") }, code: "InvalidAccessKeyId.NotFound"},
		"signature method":     {method: "GET", change: func(p url.Values) { p.Set("SignatureMethod", "HMAC-MD5") }, code: "InvalidSignatureMethod"},
		"signature version":    {method: "GET", change: func(p url.Values) { p.Set("SignatureVersion", "2.0") }, code: "InvalidParameter"},
		"bearer token":         {method: "GET", change: func(p url.Values) { p.Set("SignatureType", "BEARERTOKEN") }, code: "InvalidParameter"},
		"time without a zone":  {method: "GET", change: func(p url.Values) { p.Set("Timestamp", "2026-03-01 13:00:00") }, code: "InvalidTimeStamp.Format"},
		"16 minutes old":       {method: "GET", change: stamped(now.Add(-16 * time.Minute)), code: "InvalidTimeStamp.Expired"},
		"14 minutes old":       {method: "GET", change: stamped(now.Add(-14 * time.Minute))},
		"16 minutes in future": {method: "GET", change: stamped(now.Add(16 * time.Minute)), code: "InvalidTimeStamp.Expired"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			params := rpcParams(now, "nonce")
			if tt.change != nil {
				tt.change(params)
			}
			signRPC(tt.method, testSecret, params)
			if tt.tamper != nil {
				tt.tamper(params)
			}
			hr := httptest.NewRequest(tt.method, "/?"+params.Encode(), nil)
			checkRefused(t, verify(t, newVerifier(now), hr), tt.code)
		})
	}
}

func stamped(at time.Time) func(url.Values) {
	return func(p url.Values) { p.Set("Timestamp", at.Format(wire.TimeLayout)) }
}

func TestMismatchQuotesStringToSign(t *testing.T) {
	params := rpcParams(start, "nonce")
	params.Set("Plaintext", "c2VjcmV0")
	signRPC(http.MethodGet, "wrong", params)
	hr := httptest.NewRequest(http.MethodGet, "/?"+params.Encode(), nil)
	err := verify(t, newVerifier(start), hr)
	if _, quoted, _ := strings.Cut(err.Error(), "server string to sign is:"); !strings.HasPrefix(quoted, "GET&%2F&AccessKeyId%3DLTAItest%26Action%3DEncrypt%26") {
		t.Errorf("got %q", err)
	}

	quiet := wire.NewVerifier(wire.VerifierConfig{Secrets: secrets{testKey: testSecret}, Now: func() time.Time { return start }})
	err = verify(t, quiet, hr)
	checkRefused(t, err, "SignatureDoesNotMatch")
	if strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("%q carries a parameter", err)
	}
}

func TestVerifyACS3(t *testing.T) {
	now := start.Add(time.Hour)
	const form = "application/x-www-form-urlencoded"
	tests := map[string]struct {
		call   acs3Call
		tamper func(*http.Request)
		code   string
	}{
		"query":           {call: acs3Call{method: "POST", query: "KeyId=a+b%2Ac&Plaintext="}},
		"form":            {call: acs3Call{method: "POST", body: "KeyId=a&Plaintext=YQ%3D%3D"}},
		"both":            {call: acs3Call{method: "POST", query: "KeyId=a", body: "Plaintext=YQ%3D%3D"}},
		"GET":             {call: acs3Call{method: "GET", query: "KeyId=a"}},
		"STS headers":     {call: acs3Call{method: "GET", extra: map[string]string{"x-acs-security-token": "t", "x-acs-accesskey-id": testKey}}},
		"tampered query":  {call: acs3Call{method: "GET", query: "KeyId=a"}, tamper: func(r *http.Request) { r.URL.RawQuery = "KeyId=b" }, code: "SignatureDoesNotMatch"},
		"tampered host":   {call: acs3Call{method: "GET"}, tamper: func(r *http.Request) { r.Host = "other" }, code: "SignatureDoesNotMatch"},
		"tampered action": {call: acs3Call{method: "GET"}, tamper: func(r *http.Request) { r.Header.Set("X-Acs-Action", "Decrypt") }, code: "SignatureDoesNotMatch"},
		"tampered body": {call: acs3Call{method: "POST", body: "KeyId=a"}, tamper: func(r *http.Request) {
			r.Body = http.NoBody
		}, code: "SignatureDoesNotMatch"},
		"body hash is a lie": {call: acs3Call{method: "POST", body: "KeyId=a", extra: map[string]string{
			"x-acs-content-sha256": strings.Repeat("0", 64),
		}}, code: "SignatureDoesNotMatch"},
		"no body hash":           {call: acs3Call{method: "GET", extra: map[string]string{"x-acs-content-sha256": ""}}, code: "MissingParameter"},
		"no date":                {call: acs3Call{method: "GET", extra: map[string]string{"x-acs-date": ""}}, code: "MissingParameter"},
		"no nonce":               {call: acs3Call{method: "GET", extra: map[string]string{"x-acs-signature-nonce": ""}}, code: "MissingParameter"},
		"unsigned host":          {call: acs3Call{method: "GET", unsigned: []string{"host"}}, code: "IncompleteSignature"},
		"unsigned action":        {call: acs3Call{method: "GET", unsigned: []string{"x-acs-action"}}, code: "IncompleteSignature"},
		"unsigned version":       {call: acs3Call{method: "GET", unsigned: []string{"x-acs-version"}}, code: "IncompleteSignature"},
		"unsigned date":          {call: acs3Call{method: "GET", unsigned: []string{"x-acs-date"}}, code: "IncompleteSignature"},
		"unsigned nonce":         {call: acs3Call{method: "GET", unsigned: []string{"x-acs-signature-nonce"}}, code: "IncompleteSignature"},
		"unsigned body hash":     {call: acs3Call{method: "GET", unsigned: []string{"x-acs-content-sha256"}}, code: "IncompleteSignature"},
		"unsigned content type":  {call: acs3Call{method: "POST", body: "KeyId=a", unsigned: []string{"content-type"}}, code: "IncompleteSignature"},
		"unsigned region":        {call: acs3Call{method: "GET", extra: map[string]string{"x-acs-region-id": "r"}, unsigned: []string{"x-acs-region-id"}}, code: "IncompleteSignature"},
		"another access key":     {call: acs3Call{method: "GET", extra: map[string]string{"x-acs-accesskey-id": "LTAIother"}}, code: "IncompleteSignature"},
		"no algorithm":           {call: acs3Call{method: "GET"}, tamper: setAuthorization("Credential=LTAItest,Signature="), code: "IncompleteSignature"},
		"algorithm alone":        {call: acs3Call{method: "GET"}, tamper: setAuthorization("ACS3-HMAC-SHA256"), code: "IncompleteSignature"},
		"no signed headers":      {call: acs3Call{method: "GET"}, tamper: setAuthorization("ACS3-HMAC-SHA256 Credential=LTAItest,Signature=00"), code: "IncompleteSignature"},
		"other algorithm":        {call: acs3Call{method: "GET"}, tamper: setAuthorization("ACS3-HMAC-SM3 Credential=LTAItest,SignedHeaders=host,Signature=00"), code: "InvalidSignatureMethod"},
		"content type, no body":  {call: acs3Call{method: "POST", query: "KeyId=a", extra: map[string]string{"content-type": form}}},
		"header in capital form": {call: acs3Call{method: "GET"}, tamper: func(r *http.Request) { r.Header.Set("X-ACS-ACTION", "Encrypt") }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.call.secret = testSecret
			hr := tt.call.request(now, "nonce")
			if tt.tamper != nil {
				tt.tamper(hr)
			}
			checkRefused(t, verify(t, newVerifier(now), hr), tt.code)
		})
	}
}

func setAuthorization(value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", value) }
}

func TestUnsignedIsRefused(t *testing.T) {
	hr := httptest.NewRequest(http.MethodGet, "/?Action=Encrypt&Version=2016-01-20", nil)
	checkRefused(t, verify(t, newVerifier(start), hr), "MissingParameter")
}

func TestReplay(t *testing.T) {
	v := newVerifier(start)
	call := func(nonce string, at time.Time) error {
		params := rpcParams(at, nonce)
		signRPC(http.MethodGet, testSecret, params)
		return verify(t, v, httptest.NewRequest(http.MethodGet, "/?"+params.Encode(), nil))
	}
	checkRefused(t, call("a", start), "")
	checkRefused(t, call("a", start), "SignatureNonceUsed")
	checkRefused(t, call("a", start.Add(time.Minute)), "SignatureNonceUsed")
	checkRefused(t, call("b", start), "")
	// A nonce of a request that was not let in is not used up.
	params := rpcParams(start, "c")
	signRPC(http.MethodGet, "wrong", params)
	checkRefused(t, verify(t, v, httptest.NewRequest(http.MethodGet, "/?"+params.Encode(), nil)), "SignatureDoesNotMatch")
	checkRefused(t, call("c", start), "")
}

func TestStampedBeforeStart(t *testing.T) {
	for _, tt := range []struct {
		stamp time.Time
		code  string
	}{
		{start.Add(-time.Second), "InvalidTimeStamp.Expired"},
		{start, ""}, // stamps have whole seconds
	} {
		call := acs3Call{method: http.MethodGet, secret: testSecret}
		checkRefused(t, verify(t, newVerifier(start.Add(time.Second)), call.request(tt.stamp, "n")), tt.code)
	}
}
