package devices

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// TestLibraryIsFound through the client's own configuration, wherever that is told
// to be, and not without it.
func TestLibraryIsFound(t *testing.T) {
	d := newDevice(t, hsmsim.Luna).with(map[string]string{"library": ""})
	if err := d.mustOpen(t).Health(t.Context()); err != nil {
		t.Errorf("by the environment: %v", err)
	}
	d.config.Environment = slices.DeleteFunc(slices.Clone(d.config.Environment), func(entry string) bool {
		return strings.HasPrefix(entry, "ChrystokiConfigurationPath=")
	})
	if err := d.with(map[string]string{"config_dir": d.Dir}).mustOpen(t).Health(t.Context()); err != nil {
		t.Errorf("by config_dir: %v", err)
	}
	if _, err := d.with(nil).open(t); !errors.Is(err, hsm.Misconfigured) {
		t.Errorf("without a configuration: %v", err)
	}
}

// TestInitTokenIsRefused where a security officer makes partitions with the vendor's
// own tool, and without a word to the device.
func TestInitTokenIsRefused(t *testing.T) {
	for _, dress := range []hsmsim.Dress{hsmsim.Luna, hsmsim.DPoD} {
		d := newDevice(t, dress)
		_, err := backend.InitToken(t.Context(), d.config, "new", []byte("1234-officer"), []byte("1234-user"))
		if !errors.Is(err, hsm.NotPermitted) || !strings.Contains(err.Error(), "lunacm") {
			t.Errorf("%s: %v", dress, err)
		}
		if calls := d.Calls(); len(calls) > 0 {
			t.Errorf("%s was asked for %+v", dress, calls)
		}
	}
}
