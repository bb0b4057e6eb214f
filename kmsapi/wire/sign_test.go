package wire_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const (
	testKey    = "LTAItest"
	testSecret = "s3cret"
)

// secrets knows access keys by their IDs.
type secrets map[string]string

func (s secrets) Secret(id, _ string) (string, error) {
	if secret, ok := s[id]; ok {
		return secret, nil
	}
	return "", wire.ErrUnknownAccessKey
}

// signRPC signs parameters as RPC v1 does, written after the documentation and
// apart from the code under test.
func signRPC(method, secret string, params url.Values) {
	params.Del("Signature")
	sorted := strings.ReplaceAll(params.Encode(), "+", "%20")
	mac := hmac.New(sha1.New, []byte(secret+"&"))
	fmt.Fprintf(mac, "%s&%%2F&%s", method, url.QueryEscape(sorted))
	params.Set("Signature", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// rpcParams are the parameters of an Encrypt call, ready to be signed.
func rpcParams(now time.Time, nonce string) url.Values {
	return url.Values{
		"Action": {"Encrypt"}, "Version": {"2016-01-20"}, "Format": {"JSON"}, "AccessKeyId": {testKey},
		"Timestamp": {now.UTC().Format(wire.TimeLayout)}, "SignatureMethod": {"HMAC-SHA1"},
		"SignatureVersion": {"1.0"}, "SignatureType": {""}, "SignatureNonce": {nonce}, "RegionId": {"cn-hangzhou"},
		"KeyId": {"alias/a b*c~d"}, "Plaintext": {"aGVsbG8="},
	}
}

// acs3Call is an ACS3 request before it is signed. Headers in extra are added,
// and an empty value removes one.
type acs3Call struct {
	method, query, body string
	extra               map[string]string
	unsigned            []string // headers left out of SignedHeaders
	secret              string
}

// request builds and signs, written after the documentation and apart from the
// code under test.
func (c acs3Call) request(now time.Time, nonce string) *http.Request {
	r := httptest.NewRequest(c.method, "http://kms.cn-hangzhou.aliyuncs.com:8080/?"+c.query, strings.NewReader(c.body))
	sum := sha256.Sum256([]byte(c.body))
	headers := map[string]string{
		"host": r.Host, "x-acs-action": "Encrypt", "x-acs-version": "2016-01-20",
		"x-acs-date": now.UTC().Format(wire.TimeLayout), "x-acs-signature-nonce": nonce,
		"x-acs-content-sha256": hex.EncodeToString(sum[:]),
	}
	if c.body != "" {
		headers["content-type"] = "application/x-www-form-urlencoded"
	}
	for name, value := range c.extra {
		headers[name] = value
		if value == "" {
			delete(headers, name)
		}
	}
	var names []string
	for name, value := range headers {
		if name != "host" {
			r.Header.Set(name, value)
		}
		if !slices.Contains(c.unsigned, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var lines string
	for _, name := range names {
		lines += name + ":" + headers[name] + "\n"
	}
	query, _ := url.ParseQuery(c.query)
	canonical := c.method + "\n/\n" + strings.ReplaceAll(query.Encode(), "+", "%20") + "\n" + lines + "\n" +
		strings.Join(names, ";") + "\n" + hex.EncodeToString(sum[:])
	hash := sha256.Sum256([]byte(canonical))
	mac := hmac.New(sha256.New, []byte(c.secret))
	mac.Write([]byte("ACS3-HMAC-SHA256\n" + hex.EncodeToString(hash[:])))
	r.Header.Set("Authorization", fmt.Sprintf("ACS3-HMAC-SHA256 Credential=%s,SignedHeaders=%s,Signature=%s",
		testKey, strings.Join(names, ";"), hex.EncodeToString(mac.Sum(nil))))
	return r
}

// checkRefused compares the code of a refusal.
func checkRefused(t *testing.T, err error, code string) {
	t.Helper()
	e, ok := err.(*wire.Error) //nolint:errorlint // the API promises the bare type
	switch {
	case code == "" && err != nil:
		t.Fatalf("refused: %v", err)
	case code != "" && (!ok || e.Code != code):
		t.Fatalf("got %v, want %s", err, code)
	}
}
