// Package wire is the HTTP protocol of Alibaba Cloud KMS from the server's
// side: it reads a request, checks its signature and writes the answer. It knows
// nothing of keys, so that whatever wants to look like KMS to an official SDK
// shares one reading of the protocol.
//
// Two ways to sign exist. RPC v1 ("Signature", HMAC-SHA1, SignatureVersion 1.0)
// carries everything in parameters; ACS3-HMAC-SHA256 ("Request syntax and
// signature method V3") carries the protocol's part in headers. Both are accepted
// with GET and POST, with parameters in the query, in a form body or in both.
//
// Answers are JSON whatever the parameter Format asks for: no SDK in use asks
// for XML, and a second encoding would be a second set of mistakes.
package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Limits of a request in bytes. A server sets MaxHeader as its
// http.Server.MaxHeaderBytes: SDKs put up to 32 kB of parameters in the URL.
const (
	MaxHeader = 1 << 20
	MaxBody   = 1 << 20
)

// TimeLayout is how the protocol writes times, always in UTC.
const TimeLayout = "2006-01-02T15:04:05Z"

// Scheme is the way a request is signed.
type Scheme int

// The schemes.
const (
	Unsigned Scheme = iota
	RPC             // RPC v1, HMAC-SHA1 over the parameters
	ACS3            // ACS3-HMAC-SHA256 over the parameters, some headers and the body
)

// Request is a request as the protocol means it. Nothing in it is to be believed
// before [Verifier.Verify] has passed it.
type Request struct {
	ID      string     // of this request, chosen here; a UUID in upper case
	Source  netip.Addr // of the client, invalid when it has none
	Secure  bool       // it came over TLS
	Host    string     // as the client addressed it, with the port if it gave one
	Action  string     // "Encrypt"
	Version string     // "2016-01-20"
	// Params are the parameters of the operation, without those of the
	// protocol. RegionId is among them when it was given.
	Params Params
	// Region is what the client says of the region, outside the host name: the
	// parameter RegionId or the header x-acs-region-id. Empty without one.
	Region string

	Scheme        Scheme
	AccessKeyID   string
	SecurityToken string
	Time          time.Time // when it was signed; zero when absent or malformed
	Nonce         string

	method   string
	header   http.Header
	query    map[string]string // what the URL carries
	all      map[string]string // what URL and body carry
	bodyHash string            // SHA-256 of the body in lower-case hex
	timeText string
	auth     authorization
}

// protocolParams are the parameters that belong to the protocol, not to an
// operation.
var protocolParams = []string{
	"Action", "Version", "Format", "AccessKeyId", "Timestamp", "SignatureMethod", "SignatureVersion",
	"SignatureNonce", "SignatureType", "Signature", "SecurityToken", "BearerToken",
}

// Parse reads a request. The Request is never nil: also with an error it holds
// what is needed to answer and to log. Errors are [*Error].
//
// Parse asks only for what every caller must send, an action and a version; what
// a signature needs is asked for by [Verifier.Verify], so that a door whose
// callers are known in another way can take unsigned requests.
func Parse(hr *http.Request) (*Request, error) {
	r := newRequest(hr)
	if hr.Method != http.MethodGet && hr.Method != http.MethodPost {
		return r, errMethod
	}
	if path := hr.URL.Path; path != "/" && path != "" {
		return r, ErrUnknownAction
	}
	body, err := readBody(hr)
	if err != nil {
		return r, err
	}
	if err := r.parseParams(hr, body); err != nil {
		return r, err
	}
	r.parseSignature()
	r.parseOperation()
	switch {
	case r.Action == "":
		return r, MissingParameter("Action")
	case r.Version == "":
		return r, MissingParameter("Version")
	}
	return r, nil
}

// newRequest has what can be known without reading anything.
func newRequest(hr *http.Request) *Request {
	r := &Request{
		ID:     strings.ToUpper(uuid.NewString()),
		Host:   hr.Host, // with the port: clients sign it
		Secure: hr.TLS != nil,
		method: hr.Method,
		header: hr.Header,
	}
	if client, err := netip.ParseAddrPort(hr.RemoteAddr); err == nil {
		r.Source = client.Addr().Unmap()
	}
	return r
}

func readBody(hr *http.Request) ([]byte, error) {
	if hr.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(hr.Body, MaxBody+1))
	_, tooLarge := errors.AsType[*http.MaxBytesError](err) // a server may have a lower limit
	if err != nil && !tooLarge {
		return nil, errParse
	}
	if tooLarge || len(body) > MaxBody {
		return nil, errTooLarge
	}
	return body, nil
}

// parseParams collects the parameters of URL and body. A name given twice is
// refused: one of the two values would be signed and the other obeyed.
func (r *Request) parseParams(hr *http.Request, body []byte) error {
	sum := sha256.Sum256(body)
	r.bodyHash = hex.EncodeToString(sum[:])
	r.query, r.all = map[string]string{}, map[string]string{}
	if err := addParams(hr.URL.RawQuery, r.query, r.all); err != nil {
		return err
	}
	if len(body) > 0 {
		if media, _, err := mime.ParseMediaType(hr.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
			return errParse
		}
		if err := addParams(string(body), r.all); err != nil {
			return err
		}
	}
	r.Params = maps.Clone(r.all)
	for _, name := range protocolParams {
		delete(r.Params, name)
	}
	return nil
}

// addParams decodes form-encoded text into every map of into.
func addParams(encoded string, into ...map[string]string) error {
	if len(encoded) > MaxHeader {
		return errTooLarge
	}
	values, err := url.ParseQuery(encoded)
	if err != nil {
		return errParse
	}
	for name, vs := range values {
		if !utf8.ValidString(name) || !utf8.ValidString(vs[0]) {
			return errParse
		}
		for _, m := range into {
			if _, twice := m[name]; twice || len(vs) > 1 {
				return errDuplicate
			}
			m[name] = vs[0]
		}
	}
	return nil
}

// parseSignature tells the schemes apart by the Authorization header alone: SDKs
// that sign with RPC v1 send x-acs-action and x-acs-version all the same.
func (r *Request) parseSignature() {
	header := r.header.Get("Authorization")
	_, hasSignature := r.all["Signature"]
	_, hasKey := r.all["AccessKeyId"]
	switch {
	case strings.HasPrefix(header, "ACS3-"):
		r.Scheme = ACS3
	case hasSignature || hasKey:
		r.Scheme = RPC
	case header != "":
		// The v2 SDK sends "Credential=...,Signature=" without an algorithm
		// when it is configured with an empty one.
		r.Scheme = ACS3
	}
	switch r.Scheme {
	case ACS3:
		r.auth = parseAuthorization(header)
		r.AccessKeyID = r.auth.credential
		r.SecurityToken = r.header.Get("X-Acs-Security-Token")
		r.timeText = r.header.Get("X-Acs-Date")
		r.Nonce = r.header.Get("X-Acs-Signature-Nonce")
	case RPC:
		r.AccessKeyID = r.all["AccessKeyId"]
		r.SecurityToken = r.all["SecurityToken"]
		r.timeText = r.all["Timestamp"]
		r.Nonce = r.all["SignatureNonce"]
	case Unsigned:
	}
	if t, err := time.Parse(TimeLayout, r.timeText); err == nil {
		r.Time = t
	}
}

// parseOperation finds action, version and region where the scheme signs them:
// a header that RPC v1 leaves unsigned must not steer anything.
func (r *Request) parseOperation() {
	if r.Scheme != ACS3 {
		r.Action, r.Version, r.Region = r.all["Action"], r.all["Version"], r.all["RegionId"]
	}
	if r.Scheme != RPC {
		r.Action = firstOf(r.Action, r.header.Get("X-Acs-Action"))
		r.Version = firstOf(r.Version, r.header.Get("X-Acs-Version"))
		r.Region = firstOf(r.all["RegionId"], r.header.Get("X-Acs-Region-Id"))
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
