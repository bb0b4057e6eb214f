package alibaba

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

func reasonOf(err error) string {
	if err == nil {
		return "ok"
	}
	return failure.From(err).Reason
}

// TestSocket: plain parameters are enough, in the query and in a form, and a
// signature makes nobody of the caller and nobody else.
func TestSocket(t *testing.T) {
	h := newHouse(t, all(me))
	client := h.socket(t)
	const address = "http://localhost/"
	hello := base64.StdEncoding.EncodeToString([]byte("hello"))

	resp, err := client.Get(address + "?" + plain("Encrypt", "KeyId", "open", "Plaintext", hello).Encode())
	sealed := read(t, resp, err)
	if sealed.Status != http.StatusOK || sealed.KeyID != h.cmks["open"] || sealed.CiphertextBlob == "" {
		t.Fatalf("%+v", sealed)
	}
	if opened := post(t, client, address, plain("Decrypt", "CiphertextBlob", sealed.CiphertextBlob)); opened.Plaintext != hello {
		t.Errorf("%+v", opened)
	}
	// An access key that exists and one that does not, and a signature by neither.
	key, secret, err := h.core.IssueAppKey(t.Context(), broker.Call{Door: "test"}, "web")
	if err != nil {
		t.Fatal(err)
	}
	signed := sign(plain("Decrypt", "CiphertextBlob", sealed.CiphertextBlob), key, secret, "n", time.Now().Add(-time.Hour))
	for range 2 {
		if opened := post(t, client, address, signed); opened.Plaintext != hello {
			t.Errorf("signed: %+v", opened)
		}
	}
	signed.Set("AccessKeyId", "LTAInobody")
	if opened := post(t, client, address, signed); opened.Plaintext != hello {
		t.Errorf("signed by nobody: %+v", opened)
	}
}

// TestRefusals: what does not work is said in KMS's words, and nothing of what a
// caller sends becomes the name of a metric.
func TestRefusals(t *testing.T) {
	h := newHouse(t, all(me))
	client := h.socket(t)
	const hello = "aGVsbG8="
	foreign, err := h.kms.Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: h.cmks["vault"], Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	reserved := `{"kmsbroker.key":"x"}`
	version := plain("Encrypt", "KeyId", "open", "Plaintext", hello)
	version.Set("Version", "2015-05-01")
	tests := map[string]struct {
		form     url.Values
		status   int
		code     string
		observed string
	}{
		"no action":                {url.Values{"Version": {apiVersion}}, 400, "MissingParameter", "unknown REQUEST"},
		"no version":               {url.Values{"Action": {"Encrypt"}}, 400, "MissingParameter", "Encrypt REQUEST"},
		"another version":          {version, 400, "InvalidVersion", "Encrypt REQUEST"},
		"another action":           {plain("CreateKey"), 404, "InvalidAction.NotFound", "unknown REQUEST"},
		"made up action":           {plain("x\ny"), 404, "InvalidAction.NotFound", "unknown REQUEST"},
		"missing parameter":        {plain("Encrypt", "KeyId", "open"), 400, "MissingParameter", "Encrypt REQUEST"},
		"another region":           {plain("Decrypt", "CiphertextBlob", "AAAA", "RegionId", "cn-beijing"), 404, "InvalidRegionId.NotFound", "Decrypt REQUEST"},
		"tried only":               {plain("Encrypt", "KeyId", "open", "Plaintext", hello, "DryRun", "true"), 400, "UnsupportedOperation", "Encrypt REQUEST"},
		"for an enclave":           {plain("Decrypt", "CiphertextBlob", "AAAA", "Recipient", "{}"), 400, "UnsupportedOperation", "Decrypt REQUEST"},
		"not base64":               {plain("Encrypt", "KeyId", "open", "Plaintext", "!"), 400, "InvalidParameter", "Encrypt REQUEST"},
		"context of numbers":       {plain("Encrypt", "KeyId", "open", "Plaintext", hello, "EncryptionContext", `{"a":1}`), 400, "InvalidParameter", "Encrypt REQUEST"},
		"too much":                 {plain("Encrypt", "KeyId", "open", "Plaintext", base64.StdEncoding.EncodeToString(make([]byte, 6145))), 400, "InvalidParameter", "Encrypt PLAINTEXT_SIZE"},
		"reserved context":         {plain("Encrypt", "KeyId", "open", "Plaintext", hello, "EncryptionContext", reserved), 403, "Forbidden.NoPermission", "Encrypt RESERVED_CONTEXT"},
		"of a data key":            {plain("GenerateDataKey", "KeyId", "open", "EncryptionContext", reserved), 403, "Forbidden.NoPermission", "GenerateDataKey RESERVED_CONTEXT"},
		"without plaintext":        {plain("GenerateDataKeyWithoutPlaintext", "KeyId", "open", "EncryptionContext", reserved), 403, "Forbidden.NoPermission", "GenerateDataKeyWithoutPlaintext RESERVED_CONTEXT"},
		"of a decryption":          {plain("Decrypt", "CiphertextBlob", "AAAA", "EncryptionContext", reserved), 403, "Forbidden.NoPermission", "Decrypt RESERVED_CONTEXT"},
		"of a source":              {plain("ReEncrypt", "CiphertextBlob", "AAAA", "DestinationKeyId", "open", "SourceEncryptionContext", reserved), 403, "Forbidden.NoPermission", "ReEncrypt RESERVED_CONTEXT"},
		"of a destination":         {plain("ReEncrypt", "CiphertextBlob", "AAAA", "DestinationKeyId", "open", "DestinationEncryptionContext", reserved), 403, "Forbidden.NoPermission", "ReEncrypt RESERVED_CONTEXT"},
		"key without a grant":      {plain("Encrypt", "KeyId", "vault", "Plaintext", hello), 403, "Forbidden.NoPermission", "Encrypt NO_GRANT"},
		"its CMK":                  {plain("Encrypt", "KeyId", h.cmks["vault"], "Plaintext", hello), 403, "Forbidden.NoPermission", "Encrypt NO_GRANT"},
		"foreign ciphertext":       {plain("Decrypt", "CiphertextBlob", foreign.CiphertextBlob), 403, "Forbidden.NoPermission", "Decrypt FOREIGN_CIPHERTEXT"},
		"foreign, to be encrypted": {plain("ReEncrypt", "CiphertextBlob", foreign.CiphertextBlob, "DestinationKeyId", "open"), 403, "Forbidden.NoPermission", "ReEncrypt FOREIGN_CIPHERTEXT"},
		"what KMS refused":         {plain("Decrypt", "CiphertextBlob", "AAAA"), 400, "InvalidParameter", "Decrypt KMS_InvalidParameter"},
		"large body":               {plain("Decrypt", "CiphertextBlob", strings.Repeat("A", maxBody)), 413, "RequestEntityTooLarge", "unknown REQUEST"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h.observed = nil
			if got := post(t, client, "http://localhost/", test.form); got.Status != test.status || got.Code != test.code || got.Message == "" {
				t.Errorf("%+v, want %d %s", got, test.status, test.code)
			}
			if !slices.Equal(h.observed, []string{test.observed}) {
				t.Errorf("observed %q, want %q", h.observed, test.observed)
			}
		})
	}
}

// TestRefusalsAreAlike: whether there is a key, and what the broker calls it, is
// told to nobody who may do nothing with it.
func TestRefusalsAreAlike(t *testing.T) {
	h := newHouse(t, all(me), authz.Grant{Effect: authz.Deny, Keys: []string{"vault"}, Operations: authz.Operations(), UIDs: all(me).UIDs})
	client := h.socket(t)
	for _, operation := range []string{"Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "DescribeKey", "ListAliasesByKeyId"} {
		answers := map[string]bool{}
		for _, id := range []string{h.cmks["vault"], "alias/vault", "vault", "alias/nothing", "11111111-2222-3333-4444-555555555555", "nothing"} {
			got := post(t, client, "http://localhost/", plain(operation, "KeyId", id, "Plaintext", "aGVsbG8="))
			got.RequestID = ""
			answers[got.Code+" "+got.Message] = true
		}
		if len(answers) != 1 {
			t.Errorf("%s: %v", operation, answers)
		}
	}
}

// TestSigned: the signature says who calls, once, and not after its key was revoked.
func TestSigned(t *testing.T) {
	h := newHouse(t, all(web))
	before := time.Now()
	address := h.tcp(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	admin := broker.Call{Door: "test"}
	issue := func(app string) (keyring.AppKey, string) {
		t.Helper()
		key, secret, err := h.core.IssueAppKey(t.Context(), admin, app)
		if err != nil {
			t.Fatal(err)
		}
		return key, secret
	}
	key, secret := issue("web")
	spare, spareSecret := issue("web")
	other, otherSecret := issue("batch")
	form := func() url.Values { return plain("Encrypt", "KeyId", "open", "Plaintext", "aGVsbG8=") }
	ask := func(name string, form url.Values, status int, code string) {
		t.Helper()
		if got := post(t, client, address, form); got.Status != status || got.Code != code {
			t.Errorf("%s: %+v, want %d %q", name, got, status, code)
		}
	}
	signed := sign(form(), key, secret, "1", time.Now())
	ask("signed", signed, 200, "")
	ask("again", signed, 400, "SignatureNonceUsed")
	ask("nobody", form(), 400, "MissingParameter")
	ask("another secret", sign(form(), key, otherSecret, "2", time.Now()), 400, "SignatureDoesNotMatch")
	ask("unknown key", sign(form(), keyring.AppKey{ID: "LTAInobody"}, secret, "3", time.Now()), 404, "InvalidAccessKeyId.NotFound")
	ask("too old", sign(form(), key, secret, "4", time.Now().Add(-16*time.Minute)), 400, "InvalidTimeStamp.Expired")
	ask("from before the start", sign(form(), key, secret, "5", before.Add(-time.Second)), 400, "InvalidTimeStamp.Expired")
	changed := sign(form(), key, secret, "6", time.Now())
	changed.Set("KeyId", "alias/open")
	ask("changed", changed, 400, "SignatureDoesNotMatch")
	token := sign(plain("ListKeys", "SecurityToken", "x"), key, secret, "7", time.Now())
	ask("with a token", token, 400, "InvalidSecurityToken.MismatchWithAccessKey")
	ask("without a grant", sign(form(), other, otherSecret, "1", time.Now()), 403, "Forbidden.NoPermission")
	ask("the other key", sign(form(), spare, spareSecret, "1", time.Now()), 200, "")

	if _, err := h.core.RevokeAppKeys(t.Context(), admin, key.ID); err != nil {
		t.Fatal(err)
	}
	ask("revoked, on the same connection", sign(form(), key, secret, "8", time.Now()), 404, "InvalidAccessKeyId.NotFound")
	ask("the other key", sign(form(), spare, spareSecret, "2", time.Now()), 200, "")
}

// TestSignedWaits: what is stamped in the second of the start could have been served
// by another process.
func TestSignedWaits(t *testing.T) {
	h := newHouse(t)
	started := time.Now()
	if _, err := Signed(t.Context(), h.core, h.shares, time.Now); err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); now.Unix() == started.Unix() {
		t.Errorf("started at %v and %v", started, now)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := Signed(ended, h.core, h.shares, time.Now); err == nil {
		t.Error("it waited for nobody")
	}
}

// TestPlaces: a call is a stranger's until its signature is verified, and then one of
// its application's.
func TestPlaces(t *testing.T) {
	h := newHouse(t)
	callers, err := Signed(t.Context(), h.core, h.shares, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	key, secret, err := h.core.IssueAppKey(t.Context(), broker.Call{Door: "test"}, "web")
	if err != nil {
		t.Fatal(err)
	}
	const most = 512
	begin := func(nonce string) (*Visit, error) {
		visit, err := callers.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		form := sign(plain("ListKeys"), key, secret, nonce, time.Now())
		hr := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
		hr.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r, err := wire.Parse(hr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = callers.Identify(visit, r)
		return visit, err
	}
	var visits []*Visit
	for i := range most {
		visit, err := begin(strconv.Itoa(i))
		if err != nil {
			t.Fatalf("call %d: %v", i+1, err)
		}
		visits = append(visits, visit)
	}
	crowded, err := begin("more")
	if failure.KindOf(err) != failure.Throttled {
		t.Errorf("one call too many: %v", err)
	}
	crowded.leave()
	for _, visit := range visits {
		visit.leave()
	}
	if visit, err := begin("afterwards"); err != nil {
		t.Errorf("afterwards: %v", err)
	} else {
		visit.leave()
	}
}
