// Package ram does with Alibaba Cloud RAM (API version 2015-05-01) what a broker
// needs of it: a user who may use certain CMKs and nothing else, and the life of
// that user's AccessKeys. It is over the official SDK, with the care that
// [kmsapi.RPC] takes.
package ram

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/ram"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// DefaultEndpoint is where RAM is for all regions.
const DefaultEndpoint = "ram.aliyuncs.com"

// region is a parameter that RAM demands and ignores.
const region = "cn-hangzhou"

// MaxAccessKeys is how many AccessKeys RAM lets a user have ("Limits").
const MaxAccessKeys = 2

const service = "RAM"

// Config says which RAM a Client speaks to, and as whom.
type Config struct {
	// Endpoint as in [kmsapi.ClientConfig]; empty means DefaultEndpoint.
	Endpoint string
	RootCAs  *x509.CertPool // nil: the system's
	// Credentials are an administrator's of RAM.
	Credentials kmsapi.CredentialSource
}

// Client is RAM. Its methods make one attempt at each operation, so a failure of
// one that changes something may hide a success: see
// [kmsapi.Error.OutcomeUnknown].
type Client struct{ rpc *kmsapi.RPC }

// New makes a client. It contacts nothing.
func New(config Config) (*Client, error) {
	if config.Credentials == nil {
		return nil, errors.New("a RAM client needs credentials")
	}
	rpc, err := kmsapi.NewRPC(kmsapi.RPCConfig{
		Service: service, Region: region, Endpoint: cmp.Or(config.Endpoint, DefaultEndpoint),
		RootCAs: config.RootCAs, Credentials: config.Credentials,
	})
	if err != nil {
		return nil, err
	}
	return &Client{rpc}, nil
}

// Close drops the idle connections.
func (c *Client) Close() { c.rpc.Close() }

// Codes that are acted on.
const (
	codeNoUser        = "EntityNotExist.User"
	codeNoPolicy      = "EntityNotExist.Policy"
	codeNoUserPolicy  = "EntityNotExist.User.Policy"
	codeNoAccessKey   = "EntityNotExist.User.AccessKey"
	codePolicyHeld    = "DeleteConflict.Policy."
	codeUnknownSigner = "InvalidAccessKeyId.NotFound"
)

func refused(err error, code string) bool {
	e, ok := errors.AsType[*kmsapi.Error](err)
	return ok && e.Code == code
}

// unless drops the refusal that says that there is nothing to do.
func unless(code string, err error) error {
	if refused(err, code) {
		return nil
	}
	return err
}

// NotFound reports that RAM does not know what a call was about.
func NotFound(err error) bool {
	e, ok := errors.AsType[*kmsapi.Error](err)
	return ok && strings.HasPrefix(e.Code, "EntityNotExist.")
}

// Denied reports that the administrator's credentials do not suffice.
func Denied(err error) bool {
	e, ok := errors.AsType[*kmsapi.Error](err)
	return ok && (e.Code == "NoPermission" || e.Code == "Forbidden.RAM")
}

// broken is the failure of an answer that lacks what is documented.
func broken(operation, how string) error {
	return &kmsapi.Error{
		Service: service, Operation: operation, Status: http.StatusOK, Stage: kmsapi.StageAnswered, Cause: errors.New(how),
	}
}

// parseTime reads an optional time, zero for one that is not of RAM's form.
func parseTime(text string) time.Time {
	t, err := time.Parse(kmsapi.TimeLayout, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// comments returns what is noted about a user.
func (c *Client) comments(ctx context.Context, name string) (string, error) {
	req := ram.CreateGetUserRequest()
	req.UserName = name
	resp := ram.CreateGetUserResponse()
	if err := c.rpc.Do(ctx, req, resp); err != nil {
		return "", err
	}
	if resp.User.UserName != name {
		return "", broken(req.GetActionName(), "the answer is about another user")
	}
	return resp.User.Comments, nil
}

func (c *Client) createUser(ctx context.Context, name, comments string) error {
	req := ram.CreateCreateUserRequest()
	req.UserName, req.DisplayName, req.Comments = name, name, comments
	return c.rpc.Do(ctx, req, ram.CreateCreateUserResponse())
}

func (c *Client) deleteUser(ctx context.Context, name string) error {
	req := ram.CreateDeleteUserRequest()
	req.UserName = name
	return c.rpc.Do(ctx, req, ram.CreateDeleteUserResponse())
}
