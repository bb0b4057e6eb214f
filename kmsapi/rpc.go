package kmsapi

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/responses"

	"github.com/kmsbroker/kmsbroker/internal/fault"
)

// RPCConfig says which service an RPC speaks to, and as whom.
type RPCConfig struct {
	Service string // in errors, "RAM"
	// Region is a parameter of every call; services that know none ignore it.
	Region string
	// Endpoint as in [ClientConfig], but required.
	Endpoint string
	// RootCAs verify the endpoint; nil means the system's.
	RootCAs *x509.CertPool
	// Credentials sign the calls; nil for operations that are not signed, such
	// as AssumeRoleWithOIDC.
	Credentials CredentialSource
	// Timeout bounds each call; a context that ends earlier wins. 0 means
	// DefaultTimeout.
	Timeout time.Duration
}

// RPC calls services of Alibaba Cloud that stand beside KMS, RAM and STS, with
// the same care as [Client]: contexts, parameters that stay out of URLs, one
// attempt for each call, and errors that can be logged. It may be used
// concurrently.
type RPC struct {
	config    RPCConfig
	endpoint  Endpoint
	transport *http.Transport
}

// rpcMaxConns is small because these services are called by people and once an
// hour.
const rpcMaxConns = 4

// NewRPC makes an RPC. It contacts nothing.
func NewRPC(config RPCConfig) (*RPC, error) {
	if err := CheckRegion(config.Region); err != nil {
		return nil, err
	}
	endpoint, err := ParseEndpoint(config.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", config.Service, err)
	}
	if err := checkDebug(); err != nil {
		return nil, err
	}
	config.Timeout = cmp.Or(config.Timeout, DefaultTimeout)
	return &RPC{config: config, endpoint: endpoint, transport: newTransport(config.RootCAs, rpcMaxConns)}, nil
}

// Endpoint returns where the calls go.
func (r *RPC) Endpoint() Endpoint { return r.endpoint }

// Close drops the idle connections.
func (r *RPC) Close() { r.transport.CloseIdleConnections() }

// Do makes one attempt at one operation and fails with an [*Error]. What it reads
// into resp is only as the SDK decodes it: a missing field is empty.
func (r *RPC) Do(ctx context.Context, req requests.AcsRequest, resp responses.AcsResponse) error {
	if failure := r.do(ctx, req, resp); failure != nil {
		failure.Service, failure.Operation = r.config.Service, req.GetActionName()
		return failure
	}
	return nil
}

func (r *RPC) do(ctx context.Context, req requests.AcsRequest, resp responses.AcsResponse) *Error {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	var credentials *Credentials
	if r.config.Credentials != nil {
		c, err := r.config.Credentials.Credentials(ctx)
		if err == nil && (c.AccessKeyID == "" || c.AccessKeySecret == "") {
			err = errors.New("the credentials lack an AccessKey ID or secret")
		}
		if err != nil {
			return &Error{Stage: StageLocal, Cause: err}
		}
		credentials = &c
	}
	ex := &exchange{base: r.transport}
	// The SDK's client writes to itself on every call, so each call has its own.
	client := &sdk.Client{}
	if err := configure(client, r.config.Region, r.endpoint, r.config.Timeout, ex); err != nil {
		return &Error{Stage: StageLocal, Cause: err}
	}
	ex.begin(ctx, req.GetActionName(), credentials)
	point := r.config.Service + "/" + req.GetActionName()
	fault.Point(point + "/before")
	err := client.DoAction(req, resp)
	fault.Point(point + "/after")
	if failure := ex.end(); failure != nil {
		return failure
	}
	if err != nil {
		return &Error{Status: http.StatusOK, Stage: StageAnswered, Cause: errors.New("the answer does not have the documented form")}
	}
	// The one sign that the service has answered at all: an empty object is a
	// success to the SDK.
	var v verdict
	if err := json.Unmarshal(resp.GetHttpContentBytes(), &v); err != nil || requestID(v.RequestID) == "" {
		return &Error{Status: http.StatusOK, Stage: StageAnswered, Cause: errors.New("RequestId in the answer is missing or is not an ID")}
	}
	return nil
}
