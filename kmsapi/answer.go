package kmsapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

var (
	codePattern      = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,127}$`)
	requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

// maxRequestID is what requestIDPattern allows, in bytes.
const maxRequestID = 64

// verdict is the part that refusals and successes have in common. Code is absent
// from a success.
type verdict struct {
	Code      string
	Message   string
	RequestID string `json:"RequestId"`
}

// readFailure returns the failure that an answer amounts to, nil for a success.
func readFailure(resp *http.Response, body []byte, secrets []string) *Error {
	failure := &Error{
		Status: resp.StatusCode, Stage: StageAnswered, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		RequestID: harmless(requestID(resp.Header.Get("X-Acs-Request-Id")), secrets),
	}
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
		failure.Cause = errors.New("the answer is not the JSON object that Alibaba Cloud sends; is a proxy or another service at this address?")
		return failure
	}
	failure.RequestID = cmp.Or(harmless(requestID(v.RequestID), secrets), failure.RequestID)
	switch success := resp.StatusCode/100 == 2; {
	case success && repeats(v.RequestID, secrets):
		failure.Cause = errors.New("RequestId in the answer repeats a secret of the request")
	case success && v.Code == "":
		return nil
	case success:
		failure.Cause = errors.New("the answer carries an error code although its status says success")
	case !codePattern.MatchString(v.Code):
		failure.Cause = errors.New("the answer carries no error code although its status says failure")
	default:
		// A caller that chooses its plaintext to look like a code must not turn a
		// refusal into an answer that is not from KMS.
		failure.Code = cmp.Or(harmless(v.Code, secrets), CodeWithheld)
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

// harmless returns text unless it repeats a secret.
func harmless(text string, secrets []string) string {
	if repeats(text, secrets) {
		return ""
	}
	return text
}

// maxRetryAfter bounds what a server can make a client wait.
const maxRetryAfter = time.Hour

// retryAfter reads the header of that name, seconds or a date (RFC 9110, section
// 10.2.3); 0 without one.
func retryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.Atoi(value); err == nil {
		wait = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
