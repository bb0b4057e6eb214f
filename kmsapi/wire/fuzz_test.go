package wire

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

type noSecrets struct{}

func (noSecrets) Secret(string, string) (string, error) { return "secret", nil }

func FuzzParse(f *testing.F) {
	f.Add("GET", "Action=Encrypt&Version=2016-01-20&KeyId=k", "", "", "")
	f.Add("POST", "Action=Encrypt", "application/x-www-form-urlencoded", "Version=1&AccessKeyId=a&Signature=b", "")
	f.Add("POST", "%zz=1;", "multipart/form-data", "x", "Credential=,Signature=")
	f.Add("POST", "", "", "", "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host;x-acs-date,Signature=ff")
	f.Fuzz(func(t *testing.T, method, query, contentType, body, authorization string) {
		r := &http.Request{
			Method: method, URL: &url.URL{Path: "/", RawQuery: query}, Host: "kms.test",
			Header: http.Header{"Content-Type": {contentType}, "Authorization": {authorization}},
			Body:   http.NoBody,
		}
		r.Body = httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)).Body
		got, err := Parse(r)
		if got == nil || got.ID == "" {
			t.Fatal("a request without an ID cannot be answered")
		}
		if err != nil {
			return
		}
		if got.Action == "" || got.Version == "" {
			t.Fatalf("%+v passed", got)
		}
		v := NewVerifier(VerifierConfig{Secrets: noSecrets{}, Now: time.Now})
		if err := v.Verify(got); err == nil {
			t.Fatal("a signature was guessed")
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	f.Add("ACS3-HMAC-SHA256 Credential=AK,SignedHeaders=host;x-acs-date,Signature=00ff")
	f.Add("Credential=AK,Signature=")
	f.Add("ACS3-HMAC-SHA256 ")
	f.Add("ACS3-HMAC-SHA256 =,=,;=")
	f.Fuzz(func(t *testing.T, header string) {
		a := parseAuthorization(header)
		if !a.complete() {
			return
		}
		for _, part := range []string{a.algorithm, a.credential, a.signature} {
			if !strings.Contains(header, part) {
				t.Fatalf("%q: %q was made up", header, part)
			}
		}
		if a.covers(http.Header{"X-Acs-Nobody-Signs-This": {"1"}}) && !strings.Contains(strings.ToLower(header), "x-acs-nobody-signs-this") {
			t.Fatalf("%q: an unsigned header passes", header)
		}
	})
}

// FuzzCanonicalQuery checks that what is signed stands for one set of parameters
// only, and has no byte that a client might spell differently.
func FuzzCanonicalQuery(f *testing.F) {
	f.Add("KeyId", "alias/a b", "Plaintext", "YQ==")
	f.Add("a", "", "b", "!'()*~")
	f.Add("a=b&c", "=", "ä", "\x00+%")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		params := map[string]string{name1: value1, name2: value2}
		canonical := canonicalQuery(params)
		for _, c := range []byte(canonical) {
			if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~%=&", rune(c)) {
				t.Fatalf("%q holds %q", canonical, c)
			}
		}
		values, err := url.ParseQuery(canonical)
		if err != nil {
			t.Fatal(err)
		}
		back := map[string]string{}
		for name, vs := range values {
			back[name] = vs[0]
		}
		// url.ParseQuery drops a parameter whose name and value are both
		// empty; "=" is still there to be signed.
		if params[""] == "" {
			delete(params, "")
			delete(back, "")
		}
		if !maps.Equal(params, back) {
			t.Fatalf("%q reads back as %v, want %v", canonical, back, params)
		}
	})
}
