package bench

import (
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/credentials"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// sdkPool is how a program uses SDK v1 by itself. The SDK's client writes to itself
// with each call, so every call under way has one; they share a transport, which
// keeps as many connections as the broker's.
type sdkPool struct {
	idle sync.Pool
	host string
}

func newSDKPool(b *testing.B, url string) *sdkPool {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 256, MaxConnsPerHost: 256, IdleConnTimeout: 5 * time.Second}
	b.Cleanup(transport.CloseIdleConnections)
	p := &sdkPool{host: strings.TrimPrefix(url, "http://")}
	p.idle.New = func() any {
		config := sdk.NewConfig().WithScheme("HTTP")
		config.Transport = sharedTransport{transport}
		client, err := kms.NewClientWithOptions(stage.Region, config,
			credentials.NewAccessKeyCredential(stage.AccessKeyID, stage.AccessKeySecret))
		if err != nil {
			panic(err) // constants
		}
		client.Domain = p.host
		return client
	}
	return p
}

// sharedTransport keeps the SDK from setting up the transport for itself with each
// call.
type sharedTransport struct{ http.RoundTripper }

func (p *sdkPool) encrypt(keyID string, plaintext []byte) error {
	client := p.idle.Get().(*kms.Client)
	defer p.idle.Put(client)
	req := kms.CreateEncryptRequest()
	req.KeyId, req.Plaintext = keyID, base64.StdEncoding.EncodeToString(plaintext)
	_, err := client.Encrypt(req)
	return err
}
