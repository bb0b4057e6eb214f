package kmsapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	sdkcredentials "github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/credentials"
	"golang.org/x/net/http/httpproxy"
)

const (
	// Alibaba's gateway drops connections that were idle for about ten seconds
	// (aliyun/terraform-provider-alicloud#10635); half of that keeps us from
	// picking one up as it dies.
	idleConnTimeout = 5 * time.Second
	connectTimeout  = 5 * time.Second
	maxAnswer       = 1 << 20
	maxAnswerHeader = 64 << 10
)

// newTransport makes the connections that all sessions of a client share.
func newTransport(roots *x509.CertPool, maxConns int) *http.Transport {
	return &http.Transport{
		Proxy:                  proxy(),
		DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    connectTimeout,
		MaxConnsPerHost:        maxConns,
		MaxIdleConnsPerHost:    maxConns,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
	}
}

// proxy takes HTTPS_PROXY and NO_PROXY from the environment. Plain HTTP goes
// through no proxy, which would read the parameters.
func proxy() func(*http.Request) (*url.URL, error) {
	environment := httpproxy.FromEnvironment()
	environment.HTTPProxy = ""
	choose := environment.ProxyFunc()
	return func(req *http.Request) (*url.URL, error) { return choose(req.URL) }
}

// exchange is what the SDK sees of one call: the transport that carries it and
// the provider of its credentials. It is a type of its own because the SDK
// overwrites the dialer and the TLS settings of a plain *http.Transport, and has
// no other way to give a request a context.
type exchange struct {
	base http.RoundTripper

	// Of the present call.
	ctx         context.Context
	operation   string
	credentials *Credentials // nil: the call is not signed
	failure     *Error
}

func (e *exchange) begin(ctx context.Context, operation string, credentials *Credentials) {
	*e = exchange{base: e.base, ctx: ctx, operation: operation, credentials: credentials}
}

// end forgets the call and returns its failure, if the transport saw one.
func (e *exchange) end() *Error {
	failure := e.failure
	*e = exchange{base: e.base}
	return failure
}

// GetCredentials gives the SDK the credentials of the present call.
func (e *exchange) GetCredentials() (*sdkcredentials.Credentials, error) {
	if e.credentials == nil {
		return &sdkcredentials.Credentials{ProviderName: e.GetProviderName()}, nil
	}
	return &sdkcredentials.Credentials{
		AccessKeyId:     e.credentials.AccessKeyID,
		AccessKeySecret: e.credentials.AccessKeySecret,
		SecurityToken:   e.credentials.SecurityToken,
		ProviderName:    e.GetProviderName(),
	}, nil
}

// GetProviderName is sent along as a header.
func (e *exchange) GetProviderName() string { return "kmsbroker" }

// RoundTrip sends the request and reads the answer whole, so that the SDK meets
// nothing but a success: it panics on some error bodies and follows redirects.
func (e *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	secrets := secretsOf(req.URL.Query())
	stage := StageConnect
	out := e.form(req)
	out = out.WithContext(httptrace.WithClientTrace(e.ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { stage = StageSent },
	}))
	resp, err := e.base.RoundTrip(out)
	if err != nil {
		return nil, e.fail(&Error{Stage: stage, Cause: e.cause(err, secrets)})
	}
	defer resp.Body.Close()
	body, err := readAll(resp.Body)
	if err != nil {
		return nil, e.fail(&Error{Status: resp.StatusCode, Cause: e.cause(err, secrets)})
	}
	if failure := readFailure(resp, body, secrets); failure != nil {
		return nil, e.fail(failure)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

func (e *exchange) fail(failure *Error) *Error {
	failure.Operation = e.operation
	e.failure = failure
	return failure
}

// form moves the query into the body. The SDK puts every parameter, plaintext
// and token included, into the URL, where proxies and access logs find them. The
// signature covers the parameters and not their place.
func (e *exchange) form(req *http.Request) *http.Request {
	form := req.URL.RawQuery
	if e.credentials == nil {
		form = withoutSignature(req.URL.Query())
	}
	out := req.Clone(e.ctx)
	out.URL.Path, out.URL.RawPath, out.URL.RawQuery = "/", "", ""
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(form)), nil }
	out.Body, _ = out.GetBody()
	out.ContentLength = int64(len(form))
	out.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return out
}

// withoutSignature takes back what the SDK adds to every request, also to those
// that nobody signs.
func withoutSignature(form url.Values) string {
	for _, name := range []string{
		"AccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "SignatureType", "SignatureNonce",
	} {
		form.Del(name)
	}
	return form.Encode()
}

// cause returns err, or, when the call's context has ended, why.
func (e *exchange) cause(err error, secrets []string) error {
	if ended := e.ctx.Err(); ended != nil {
		return ended
	}
	// A broken answer is quoted by net/http.
	if text := err.Error(); scrub(text, secrets) != text {
		return errors.New(scrub(text, secrets))
	}
	return err
}

var errAnswerTooLong = errors.New("the answer is longer than 1 MiB")

func readAll(body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err == nil && len(data) > maxAnswer {
		return nil, errAnswerTooLong
	}
	return data, err
}
