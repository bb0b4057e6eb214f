package broker

import (
	"context"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/proxy"
	"github.com/kmsbroker/kmsbroker/hsm"
)

// OpenApplication gives a PKCS#11 client the application that it takes for its library.
// Its rights follow the policy. Its caller closes it. It takes a Config with a Proxy.
func (b *Broker) OpenApplication(ctx context.Context, call Call) *proxy.Application {
	ctx = withApplication(ctx, call)
	return b.proxy.Open(proxy.Client{
		Caller: call.Caller,
		Policy: b.policy.Load,
		Ready:  func() error { return unrecorded(b.Audit.Ready()) },
		Record: func(event audit.Event) error { return b.record(context.WithoutCancel(ctx), event) },
	})
}

func (b *Broker) newProxy(limits proxy.Limits) *proxy.Proxy {
	var tokens []proxy.Token
	for _, found := range b.Backends.All() {
		tokens = append(tokens, proxy.Token{Name: found.Status().Name, Backend: found})
	}
	return proxy.New(proxy.Config{
		Tokens: tokens, Reserved: b.reservedObject, Limits: limits, Now: b.Now, Log: b.Log,
	})
}

func (b *Broker) proxyStatus() []proxy.Status {
	if b.proxy == nil {
		return nil
	}
	return b.proxy.Status()
}

var _ proxy.Backend = (*backend.Backend)(nil)

// reservedObject reports whether an object of a token is the broker's own: the material
// of a CMK, by the registry, or a key that some broker made for that.
func (b *Broker) reservedObject(label string, id []byte) bool {
	return strings.HasPrefix(label, importer.LabelPrefix) || len(id) > 0 && b.Keyring.IsMaterial(hsm.KeyIDFromBytes(id))
}
