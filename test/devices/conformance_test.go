package devices

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// TestConformance: every device passes every check, except for what its kind is
// documented not to do, and does not count a single PIN.
func TestConformance(t *testing.T) {
	// Old firmware knows OAEP with SHA-1 alone and refuses other parameters; W-04 asks
	// for nothing that is not declared. FIPS mode, in which DPoD services are unless
	// they were made otherwise, forbids wrapping with PKCS #1 v1.5.
	oldFirmware := map[string]string{"W-01": "CKR_MECHANISM_PARAM_INVALID", "W-04": ""}
	fips := map[string]string{"W-03": "CKR_MECHANISM_INVALID"}
	for _, tt := range []struct {
		dress        hsmsim.Dress
		algorithms   []hsm.WrappingAlgorithm
		notSupported map[string]string // checks, and the device's code
	}{
		{hsmsim.Luna, hsm.WrappingAlgorithms(), nil},
		{hsmsim.LunaFIPS, []hsm.WrappingAlgorithm{hsm.OAEPSHA256, hsm.OAEPSHA1}, fips},
		{hsmsim.LunaOldFirmware, []hsm.WrappingAlgorithm{hsm.OAEPSHA1, hsm.PKCS1v15}, oldFirmware},
		{hsmsim.LunaHA, hsm.WrappingAlgorithms(), nil},
		{hsmsim.DPoD, []hsm.WrappingAlgorithm{hsm.OAEPSHA256, hsm.OAEPSHA1}, fips},
	} {
		t.Run(string(tt.dress), func(t *testing.T) {
			var opts []hsmsim.Option
			if tt.dress == hsmsim.DPoD {
				// The latency of the service is not what is tested here.
				opts = append(opts, hsmsim.Set("latency_min_ms", "1"), hsmsim.Set("latency_max_ms", "2"))
			}
			d := newDevice(t, tt.dress, opts...)
			e := newExaminer(t, d, d.PIN)
			config := e.config()
			config.Plant = func(_ context.Context, id hsm.KeyID) error { return d.plant(id) }
			report := conformance.Run(t.Context(), config)
			for _, result := range report.Results {
				code, cannot := tt.notSupported[result.ID]
				switch {
				case cannot && (result.Status != conformance.NotSupported || result.Code != code):
					t.Errorf("want %s with %s: %s", conformance.NotSupported, code, result)
				case !cannot && result.Status != conformance.Passed:
					t.Errorf("want %s: %s", conformance.Passed, result)
				}
			}
			if report.Totals.NotSupported != len(tt.notSupported) {
				t.Errorf("%d checks are not supported, want %d", report.Totals.NotSupported, len(tt.notSupported))
			}
			if report.Verdict != conformance.VerdictPassed || len(report.LeftBehind) > 0 {
				t.Fatalf("verdict %s, left behind %v", report.Verdict, report.LeftBehind)
			}
			if !slices.Equal(report.Device.WrappingAlgorithms, tt.algorithms) {
				t.Errorf("declared %s, want %s", report.Device.WrappingAlgorithms, tt.algorithms)
			}
			if left := d.Stored(); len(left) > 0 {
				t.Errorf("objects are left on the token: %+v", left)
			}
			if n := d.Failures("co"); n != 0 {
				t.Errorf("%d wrong PINs were counted", n)
			}
			t.Logf("%+v", report.Totals)
		})
	}
}

// TestSealingNeedsPolicy11: where the partition lets nobody change attributes, a
// seal is refused with the device's code, and the key can be wrapped as before.
func TestSealingNeedsPolicy11(t *testing.T) {
	d := newDevice(t, hsmsim.Luna, hsmsim.Set("policy.11", "0"))
	suite := &one{launch: d.launch}
	defer suite.kill()
	report := conformance.Run(t.Context(), conformance.Config{Open: suite.open})
	for _, result := range report.Results {
		seals := strings.HasPrefix(result.ID, "S-") && result.ID != "S-05"
		if seals != (result.Status == conformance.NotSupported) || seals && result.Code != "CKR_ATTRIBUTE_READ_ONLY" {
			t.Error(result)
		}
	}
	if report.Verdict != conformance.VerdictPassed {
		t.Errorf("verdict %s", report.Verdict)
	}
}

// TestPassingFaultCostsNoAlgorithm: a code that says nothing of the algorithm is
// no reason to wrap with a weaker one for as long as the token is open.
func TestPassingFaultCostsNoAlgorithm(t *testing.T) {
	d := newDevice(t, hsmsim.Luna)
	const functionFailed = 0x06
	d.Inject("C_WrapKey", functionFailed, 1)
	o := &one{launch: d.launch}
	defer o.kill()
	token, err := o.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	info, err := token.Describe(t.Context())
	if err != nil || !slices.Contains(info.WrappingAlgorithms, hsm.OAEPSHA256) {
		t.Errorf("Describe = %+v, %v", info, err)
	}
}
