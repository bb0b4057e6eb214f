package importer

import (
	"maps"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/reliable"
)

// Endpoint is the KMS of one region, and what an import needs to know of it.
type Endpoint struct {
	KMS    kmsapi.KMS
	URL    string // for messages
	Region string
	// Genuine: verified TLS to Alibaba Cloud. Whoever runs the endpoint
	// receives the HSM key, so nothing else is imported into without the
	// backend's explicit permission.
	Genuine bool
	// InstanceID of the KMS instance that CMKs are made in; empty for the shared
	// service.
	InstanceID string
	// WrappingAlgorithms that the service accepts.
	WrappingAlgorithms []hsm.WrappingAlgorithm
	// Health tells how the addresses behind URL are doing; nil when nobody keeps
	// track.
	Health func() []reliable.EndpointStatus
}

// Endpoints are the regions that the broker serves.
type Endpoints struct {
	Default  string // where a new key lives unless said otherwise
	ByRegion map[string]Endpoint
}

// In returns the KMS of a region; "" is the default region.
func (e Endpoints) In(region string) (Endpoint, error) {
	if len(e.ByRegion) == 0 {
		return Endpoint{}, failure.New(failure.WrongState, "KMS_MISSING", "no KMS is configured").
			WithHint("add [kms] with a region and credentials to the configuration of kmsbrokerd and restart it")
	}
	if region == "" {
		region = e.Default
	}
	found, ok := e.ByRegion[region]
	if !ok {
		return Endpoint{}, failure.New(failure.Invalid, "REGION", "region %.40q is not configured", region).
			WithHint("this kmsbrokerd serves %s", strings.Join(e.Regions(), ", "))
	}
	return found, nil
}

// Regions lists the names, the default first.
func (e Endpoints) Regions() []string {
	names := slices.Sorted(maps.Keys(e.ByRegion))
	slices.SortStableFunc(names, func(a, b string) int {
		switch e.Default {
		case a:
			return -1
		case b:
			return 1
		}
		return 0
	})
	return names
}
