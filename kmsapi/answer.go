package kmsapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

const maxMessage = 512 // characters

var (
	codePattern      = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,127}$`)
	requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

// verdict is the part that refusals and successes have in common. Code is absent
// from a success.
type verdict struct {
	Code      string
	Message   string
	RequestID string `json:"RequestId"`
}

// readFailure returns the failure that an answer amounts to, nil for a success.
func readFailure(resp *http.Response, body []byte, secrets []string) *Error {
	failure := &Error{Status: resp.StatusCode, RequestID: requestID(resp.Header.Get("X-Acs-Request-Id"))}
	if 300 <= resp.StatusCode && resp.StatusCode < 400 {
		failure.Cause = errors.New("the endpoint redirects, which is never followed: configure the address it should be")
		return failure
	}
	var v verdict
	if len(body) == 0 {
		failure.Cause = errors.New("the answer is empty")
		return failure
	}
	if err := json.Unmarshal(body, &v); err != nil {
		failure.Cause = errors.New("the answer is not the JSON object that KMS sends; is a proxy or another service at this address?")
		return failure
	}
	if scrub(v.RequestID, secrets) == v.RequestID {
		failure.RequestID = cmp.Or(requestID(v.RequestID), failure.RequestID)
	}
	switch success := resp.StatusCode/100 == 2; {
	case success && v.Code == "":
		return nil
	case success:
		failure.Cause = errors.New("the answer carries an error code although its status says success")
	case !codePattern.MatchString(v.Code) || scrub(v.Code, secrets) != v.Code:
		failure.Cause = errors.New("the answer carries no error code although its status says failure")
	default:
		failure.Code = v.Code
		failure.Message = scrub(v.Message, secrets)
	}
	return failure
}

// requestID returns id if it looks like one, else nothing.
func requestID(id string) string {
	if requestIDPattern.MatchString(id) {
		return id
	}
	return ""
}

// secretParameters may not come back in an error.
var secretParameters = []string{
	"Plaintext", "CiphertextBlob", "EncryptionContext", "EncryptedKeyMaterial",
	"ImportToken", "SecurityToken", "Signature",
}

// secretsOf returns how the secret parameters of a request would begin if an
// answer repeated them: as they are, escaped, or escaped twice as in a string to
// sign. The beginning is enough, because an echo may be cut short.
func secretsOf(form url.Values) []string {
	const telling = 16
	var secrets []string
	for _, name := range secretParameters {
		value := form.Get(name)
		if value == "" {
			continue
		}
		for range 3 {
			secrets = append(secrets, value[:min(len(value), telling)])
			value = url.QueryEscape(value)
		}
	}
	return secrets
}

// scrub makes a text of the server fit for logs. SignatureDoesNotMatch quotes
// the string to sign, which holds every parameter.
func scrub(text string, secrets []string) string {
	if before, _, found := strings.Cut(text, "server string to sign is"); found {
		text = strings.TrimRight(before, " .") + " (string to sign withheld)"
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			return "(withheld: the answer repeats a secret of the request)"
		}
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(text, ""))
	if runes := []rune(text); len(runes) > maxMessage {
		text = string(runes[:maxMessage])
	}
	return text
}
