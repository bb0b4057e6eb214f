package kmsapi

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/kmsbroker/kmsbroker/internal/fault"
)

// Defaults of ClientConfig.
const (
	DefaultTimeout  = 10 * time.Second
	DefaultMaxConns = 256
)

// ClientConfig says which KMS a Client speaks to, and as whom.
type ClientConfig struct {
	// Region such as "cn-hangzhou".
	Region string
	// Endpoint is "host", "host:port" or "https://host:port"; empty means the
	// public endpoint of the region. Only an explicit "http://host:port" is
	// spoken to without TLS.
	Endpoint string
	// RootCAs verify the endpoint; nil means the system's.
	RootCAs     *x509.CertPool
	Credentials CredentialSource
	// Timeout bounds each call; a context that ends earlier wins. 0 means
	// DefaultTimeout.
	Timeout time.Duration
	// MaxConns bounds the connections; further calls wait for one. 0 means
	// DefaultMaxConns.
	MaxConns int
}

// Client is KMS over Alibaba's SDK. It adds what the SDK lacks: contexts,
// concurrency, parameters that stay out of URLs, and errors that can be logged.
//
// The SDK holds parameters and answers as strings, so copies of a plaintext stay
// in memory until they are collected; only the slices handed out can be wiped.
type Client struct {
	region      string
	endpoint    Endpoint
	systemRoots bool
	timeout     time.Duration
	credentials CredentialSource
	transport   *http.Transport
	// idle holds *session. The SDK's client writes to itself on every call, so
	// each call has one for itself; they share the transport.
	idle sync.Pool
}

var _ KMS = (*Client)(nil)

var regionPattern = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// CheckRegion reports a text that cannot be the ID of a region.
func CheckRegion(region string) error {
	if !regionPattern.MatchString(region) {
		return fmt.Errorf("region %.100q is not of the form cn-hangzhou", region)
	}
	return nil
}

// NewClient makes a client. It contacts nothing.
func NewClient(config ClientConfig) (*Client, error) {
	if err := CheckRegion(config.Region); err != nil {
		return nil, err
	}
	endpoint, err := ParseEndpoint(cmp.Or(config.Endpoint, fmt.Sprintf(EndpointTemplate, config.Region)))
	if err != nil {
		return nil, err
	}
	if config.Credentials == nil {
		return nil, errors.New("a KMS client needs credentials")
	}
	if err := checkDebug(); err != nil {
		return nil, err
	}
	c := &Client{
		region:      config.Region,
		endpoint:    endpoint,
		systemRoots: config.RootCAs == nil,
		timeout:     cmp.Or(config.Timeout, DefaultTimeout),
		credentials: config.Credentials,
		transport:   newTransport(config.RootCAs, cmp.Or(config.MaxConns, DefaultMaxConns)),
	}
	first, err := c.newSession()
	if err != nil {
		return nil, err
	}
	c.idle.Put(first)
	return c, nil
}

// checkDebug refuses the SDK's own debugging.
func checkDebug() error {
	if slices.Contains(strings.Split(os.Getenv("DEBUG"), ","), "sdk") {
		return errors.New("DEBUG=sdk makes the Alibaba SDK print plaintexts and tokens: remove it from the environment")
	}
	return nil
}

// Endpoint returns where the client sends its calls.
func (c *Client) Endpoint() Endpoint { return c.endpoint }

// Genuine reports that the endpoint is proven to be Alibaba's KMS before
// anything is sent to it: TLS to the public or the VPC name of the region's KMS,
// verified with the system's roots. Other names under aliyuncs.com do not count,
// because customers' buckets and load balancers have such names too; nor do
// roots that an environment variable chose.
func (c *Client) Genuine() bool {
	return c.systemRoots && c.endpoint.TLS && c.endpoint.alibaba(c.region) &&
		os.Getenv("SSL_CERT_FILE") == "" && os.Getenv("SSL_CERT_DIR") == ""
}

// Close drops the idle connections. Calls under way are not disturbed.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
}

// session is one SDK client and the exchange it sends through; it serves one
// call at a time.
type session struct {
	sdk      *kms.Client
	exchange *exchange
}

func (c *Client) newSession() (*session, error) {
	// Not kms.NewClientWithOptions, which writes a package variable without a
	// lock to learn endpoints; ours is given.
	s := &session{sdk: &kms.Client{}, exchange: &exchange{base: c.transport}}
	if err := configure(&s.sdk.Client, c.region, c.endpoint, c.timeout, s.exchange); err != nil {
		return nil, err
	}
	return s, nil
}

// configure has an SDK client send everything to an endpoint through an exchange.
func configure(client *sdk.Client, region string, endpoint Endpoint, timeout time.Duration, ex *exchange) error {
	scheme := requests.HTTPS
	if !endpoint.TLS {
		scheme = requests.HTTP
	}
	config := sdk.NewConfig().WithScheme(scheme)
	config.Transport = ex
	if err := client.InitWithOptions(region, config, ex); err != nil {
		return fmt.Errorf("set up the Alibaba SDK: %w", err)
	}
	client.Domain = endpoint.Host
	// A global tracer would be told the URL with all parameters.
	client.SetCloseTrace(true)
	// Our own deadline is in the context and must be the one that strikes.
	client.SetReadTimeout(timeout + time.Minute)
	// The proxy is the transport's business. With these set the SDK does not
	// read the proxy variables, whose values it would compile as patterns and
	// quote in errors.
	client.SetHttpProxy("http://proxy.invalid")
	client.SetHttpsProxy("http://proxy.invalid")
	client.SetNoProxy("^$")
	return nil
}

// send makes one attempt at one operation. All its errors are *Error; those of
// the SDK are dropped, because they quote URLs and bodies.
func send[Req requests.AcsRequest, Resp any](ctx context.Context, c *Client,
	operation func(*kms.Client, Req) (Resp, error), req Req,
) (Resp, error) {
	var none Resp
	name := req.GetActionName()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()

	credentials, err := c.credentials.Credentials(ctx)
	if err != nil {
		return none, &Error{Operation: name, Stage: StageLocal, Cause: err}
	}
	if credentials.AccessKeyID == "" || credentials.AccessKeySecret == "" {
		return none, &Error{Operation: name, Stage: StageLocal, Cause: errors.New("the credentials lack an AccessKey ID or secret")}
	}
	s, err := c.session()
	if err != nil {
		return none, &Error{Operation: name, Stage: StageLocal, Cause: err}
	}
	defer c.idle.Put(s)

	s.exchange.begin(ctx, name, &credentials)
	fault.Point("kms/" + name + "/before")
	var resp Resp
	onOwnStack(func() { resp, err = operation(s.sdk, req) })
	fault.Point("kms/" + name + "/after")
	if failure := s.exchange.end(); failure != nil {
		return none, failure
	}
	if err != nil {
		return none, &Error{Operation: name, Status: http.StatusOK, Stage: StageAnswered, Cause: errors.New("the answer does not have the documented form")}
	}
	return resp, nil
}

// onOwnStack runs f in a goroutine that has nothing else on its stack. For the
// nonce of each call the SDK has the runtime print the whole stack, which below a
// door of the daemon costs as much as the signature.
func onOwnStack(f func()) {
	ended := make(chan any)
	go func() {
		defer func() { ended <- recover() }()
		f()
	}()
	if p := <-ended; p != nil {
		panic(p)
	}
}

func (c *Client) session() (*session, error) {
	if s, ok := c.idle.Get().(*session); ok {
		return s, nil
	}
	return c.newSession()
}
