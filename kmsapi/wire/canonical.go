package wire

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RPC v1 is HMAC-SHA1 by definition
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strings"
)

const acs3Algorithm = "ACS3-HMAC-SHA256"

// escape percent-encodes as both schemes demand (RFC 3986, section 2.3):
// everything but A-Z a-z 0-9 - _ . ~, with upper-case hex.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// canonicalQuery sorts the parameters by name and joins them, k=v with "&".
// Both schemes sign decoded and re-encoded parameters, because clients differ in
// what they leave unescaped in a URL.
func canonicalQuery(params map[string]string) string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(params)) {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(escape(name))
		b.WriteByte('=')
		b.WriteString(escape(params[name]))
	}
	return b.String()
}

// rpcStringToSign is what RPC v1 signs (KMS documentation, "Signature").
func rpcStringToSign(method string, params map[string]string) string {
	signed := maps.Clone(params)
	delete(signed, "Signature")
	return method + "&%2F&" + escape(canonicalQuery(signed))
}

func rpcSignature(secret, stringToSign string) string {
	mac := hmac.New(sha1.New, []byte(secret+"&"))
	mac.Write([]byte(stringToSign))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// acs3StringToSign is what ACS3 signs ("Request syntax and signature method V3").
// The hash of the body is the one computed here, never the one that the client
// claims.
func acs3StringToSign(r *Request) string {
	var headers strings.Builder
	for _, name := range r.auth.signedHeaders {
		headers.WriteString(name)
		headers.WriteByte(':')
		headers.WriteString(r.headerValue(name))
		headers.WriteByte('\n')
	}
	canonical := strings.Join([]string{
		r.method, "/", canonicalQuery(r.query), headers.String(),
		strings.Join(r.auth.signedHeaders, ";"), r.bodyHash,
	}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	return acs3Algorithm + "\n" + hex.EncodeToString(sum[:])
}

func acs3Signature(secret, stringToSign string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(stringToSign))
	return hex.EncodeToString(mac.Sum(nil))
}

// headerValue returns a header as it is signed. net/http keeps the host apart.
func (r *Request) headerValue(name string) string {
	if name == "host" {
		return r.Host
	}
	return strings.TrimSpace(strings.Join(r.header.Values(name), ","))
}
