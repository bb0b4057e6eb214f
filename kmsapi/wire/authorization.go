package wire

import (
	"net/http"
	"slices"
	"strings"
)

// authorization is the Authorization header of ACS3:
//
//	ACS3-HMAC-SHA256 Credential=AK,SignedHeaders=h1;h2,Signature=HEX
//
// The fields of a malformed header are empty; whoever verifies sees that.
type authorization struct {
	algorithm     string
	credential    string
	signedHeaders []string // in lower case, in the order of the client
	signature     string
}

func parseAuthorization(header string) authorization {
	algorithm, rest, ok := strings.Cut(header, " ")
	if !ok || strings.Contains(algorithm, "=") {
		return authorization{}
	}
	a := authorization{algorithm: algorithm}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch name {
		case "Credential":
			a.credential = value
		case "SignedHeaders":
			a.signedHeaders = strings.Split(strings.ToLower(value), ";")
		case "Signature":
			a.signature = value
		}
	}
	return a
}

// complete reports whether the header has all its parts.
func (a authorization) complete() bool {
	return a.algorithm != "" && a.credential != "" && len(a.signedHeaders) > 0 && a.signature != ""
}

// covers reports whether the signed headers include all that this package
// obeys: those that ACS3 always has, and every other x-acs-* header and the
// Content-Type when the request carries them.
func (a authorization) covers(header http.Header) bool {
	for _, name := range acs3Headers {
		if !slices.Contains(a.signedHeaders, name) {
			return false
		}
	}
	for name := range header {
		name = strings.ToLower(name)
		obeyed := name == "content-type" || strings.HasPrefix(name, "x-acs-")
		if obeyed && !slices.Contains(a.signedHeaders, name) {
			return false
		}
	}
	return true
}

// acs3Headers are the headers that every ACS3 request has and signs.
var acs3Headers = []string{
	"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256",
}
