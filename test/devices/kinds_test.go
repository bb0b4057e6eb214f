package devices

import (
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// open opens the device's token in a plugin of its own until the test ends.
func (d *device) open(t *testing.T) (hsm.Token, error) {
	t.Helper()
	o := &one{launch: d.launch}
	t.Cleanup(o.kill)
	return o.open(t.Context())
}

func (d *device) mustOpen(t *testing.T) hsm.Token {
	t.Helper()
	token, err := d.open(t)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func generate(t *testing.T, token hsm.Token) hsm.KeyID {
	t.Helper()
	id := hsm.NewKeyID()
	if _, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "kind"}); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestDescription: what each device tells of itself.
func TestDescription(t *testing.T) {
	for _, test := range []struct {
		dress    hsmsim.Dress
		model    string
		firmware string
		fips     bool
	}{
		{hsmsim.Luna, "LunaSA 7.2.0", "7.7.1", false},
		{hsmsim.LunaFIPS, "LunaSA 7.2.0", "7.7.1", true},
		{hsmsim.LunaOldFirmware, "Luna K6", "6.2.4", false},
		{hsmsim.LunaHA, "LunaVirtual", "7.7.1", false},
		{hsmsim.DPoD, "Cryptovisor7", "7.7.1", true},
	} {
		d := newDevice(t, test.dress)
		info, err := d.mustOpen(t).Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Model != test.model || info.Serial != d.Serial || info.Label != d.Label || info.Role != hsm.CryptoOfficer ||
			info.Firmware != test.firmware || info.FIPS == nil || *info.FIPS != test.fips {
			t.Errorf("%s: %+v", test.dress, info)
		}
		policies := map[int]hsm.Policy{}
		for _, p := range info.Policies {
			policies[p.Number] = p
		}
		nonFIPS := 1
		if test.fips {
			nonFIPS = 0
		}
		for _, want := range []hsm.Policy{
			{Number: 5, Name: "secret key wrapping", Value: 1},
			{Number: 11, Name: "changing key attributes", Value: 1},
			{Number: 43, Name: "non-FIPS algorithms", Value: nonFIPS},
		} {
			if got := policies[want.Number]; got != want {
				t.Errorf("%s: policy %+v, want %+v", test.dress, got, want)
			}
		}
	}
}
