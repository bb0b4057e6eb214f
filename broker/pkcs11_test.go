package broker

import (
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/proxy"
)

// TestProxyStatus: there is something to tell of the PKCS#11 proxy if there is one.
func TestProxyStatus(t *testing.T) {
	h := newHouse(t)
	if told := h.Status().Proxy; told != nil {
		t.Errorf("without a proxy: %+v", told)
	}
	config := h.Config
	config.Proxy = &proxy.Limits{MaxSessions: 1}
	if told := New(config).Status().Proxy; len(told) != 1 || told[0] != (proxy.Status{Name: "hsm"}) {
		t.Errorf("with one: %+v", told)
	}
}
