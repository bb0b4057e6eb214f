package ram

import (
	"cmp"
	"context"
	"crypto/x509"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/sts"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// DefaultSTSEndpoint is where STS answers for all regions.
const DefaultSTSEndpoint = "sts.aliyuncs.com"

// Probe asks STS with an AccessKey whose it is (GetCallerIdentity, which needs no
// permission), until STS has heard of a new AccessKey or ctx ends. The endpoint is
// as in [kmsapi.ClientConfig]; empty means DefaultSTSEndpoint.
func Probe(ctx context.Context, endpoint string, roots *x509.CertPool, key kmsapi.Credentials) error {
	rpc, err := kmsapi.NewRPC(kmsapi.RPCConfig{
		Service: "STS", Region: region, Endpoint: cmp.Or(endpoint, DefaultSTSEndpoint), RootCAs: roots,
		Credentials: kmsapi.StaticCredentials(key),
	})
	if err != nil {
		return err
	}
	defer rpc.Close()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		err := rpc.Do(ctx, sts.CreateGetCallerIdentityRequest(), sts.CreateGetCallerIdentityResponse())
		if !refused(err, codeUnknownSigner) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-again.C:
		}
	}
}
