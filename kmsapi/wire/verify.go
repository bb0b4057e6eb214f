package wire

import (
	"crypto/subtle"
	"net/http"
	"time"
)

// Window is how far the time of a request may be from the server's clock, both
// ways. Nonces are remembered that long.
const Window = 15 * time.Minute

// Secrets looks up access keys.
type Secrets interface {
	// Secret returns the secret of an access key. securityToken is what came
	// with the request, empty for a permanent access key. Errors that are an
	// [*Error], such as [ErrUnknownAccessKey], are answered as they are.
	Secret(accessKeyID, securityToken string) (string, error)
}

// VerifierConfig is what a [Verifier] needs.
type VerifierConfig struct {
	Secrets Secrets
	Now     func() time.Time
	// QuoteStringToSign makes SignatureDoesNotMatch carry the string that the
	// server would have signed, as the real gateway does; from it the v1 SDK
	// tells a wrong secret from a fault of its own. With RPC v1 that string
	// holds every parameter of the request, a Plaintext included: the client
	// sent them, but whoever logs the answer has them too.
	QuoteStringToSign bool
}

// Verifier checks signatures and refuses what was seen before. It may be used
// concurrently.
//
// It remembers nonces in memory only. A request that was stamped before the
// Verifier was made is therefore refused: it may have been served by the
// process before this one. Stamps have a resolution of one second, so a request
// from the very second of the start cannot be told apart and is let through.
type Verifier struct {
	cfg    VerifierConfig
	nonces *nonceTable
}

// NewVerifier returns a Verifier that has seen nothing.
func NewVerifier(cfg VerifierConfig) *Verifier {
	return &Verifier{cfg: cfg, nonces: newNonceTable(cfg.Now())}
}

// Verify passes a request that was signed with the secret of its access key, is
// fresh, and was not seen before. All else is an [*Error], or an error of the
// [Secrets].
func (v *Verifier) Verify(r *Request) error {
	if err := checkSigned(r); err != nil {
		return err
	}
	now := v.cfg.Now()
	if err := r.CheckTime(now); err != nil {
		return err
	}
	secret, err := v.cfg.Secrets.Secret(r.AccessKeyID, r.SecurityToken)
	if err != nil {
		return err
	}
	if err := v.checkSignature(r, secret); err != nil {
		return err
	}
	// Last, so that only holders of a secret can fill the table.
	return v.nonces.use(r.AccessKeyID, r.Nonce, r.Time, now)
}

// checkSigned makes sure that nothing is missing which the signature needs.
func checkSigned(r *Request) error {
	if r.Scheme == ACS3 {
		return checkACS3(r)
	}
	for _, name := range []string{"AccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "SignatureNonce", "Timestamp"} {
		if r.all[name] == "" {
			return MissingParameter(name)
		}
	}
	switch {
	case r.all["SignatureMethod"] != "HMAC-SHA1":
		return errSignatureMethod
	case r.all["SignatureVersion"] != "1.0":
		return InvalidParameter("SignatureVersion")
	case r.all["SignatureType"] != "":
		return InvalidParameter("SignatureType") // bearer tokens
	}
	return nil
}

func checkACS3(r *Request) error {
	if !r.auth.complete() {
		return errIncomplete
	}
	if r.auth.algorithm != acs3Algorithm {
		return errSignatureMethod
	}
	for _, name := range acs3Headers[1:] { // a request always has a host
		if r.headerValue(name) == "" {
			return MissingParameter(name)
		}
	}
	if !r.auth.covers(r.header) {
		return errIncomplete
	}
	if id := r.header.Get("X-Acs-Accesskey-Id"); id != "" && id != r.AccessKeyID {
		return errIncomplete
	}
	return nil
}

// CheckTime refuses a request whose stamp is further than [Window] from now.
func (r *Request) CheckTime(now time.Time) error {
	if r.Time.IsZero() {
		return errTimeFormat
	}
	if r.Time.Before(now.Add(-Window)) || r.Time.After(now.Add(Window)) {
		return errTimeExpired
	}
	return nil
}

func (v *Verifier) checkSignature(r *Request, secret string) error {
	var toSign, want, got string
	bodyMatches := true
	if r.Scheme == ACS3 {
		toSign = acs3StringToSign(r)
		want, got = acs3Signature(secret, toSign), r.auth.signature
		bodyMatches = r.header.Get("X-Acs-Content-Sha256") == r.bodyHash
	} else {
		toSign = rpcStringToSign(r.method, r.all)
		want, got = rpcSignature(secret, toSign), r.all["Signature"]
	}
	if subtle.ConstantTimeCompare([]byte(want), []byte(got)) == 1 && bodyMatches {
		return nil
	}
	message := messageSignature
	if v.cfg.QuoteStringToSign {
		// The v1 SDK compares all that follows the colon with what it signed.
		message += " server string to sign is:" + toSign
	}
	return &Error{Status: http.StatusBadRequest, Code: codeSignature, Message: message}
}
