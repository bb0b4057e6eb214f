package devices

import (
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// TestConformance: every device passes, declares what its kind can do, and does
// not count a single PIN.
func TestConformance(t *testing.T) {
	tests := []struct {
		dress  hsmsim.Dress
		cannot []hsm.WrappingAlgorithm
	}{
		{hsmsim.Luna, nil},
		{hsmsim.LunaFIPS, []hsm.WrappingAlgorithm{hsm.PKCS1v15}},
		{hsmsim.LunaOldFirmware, []hsm.WrappingAlgorithm{hsm.OAEPSHA256}},
		{hsmsim.LunaHA, nil},
		{hsmsim.DPoD, []hsm.WrappingAlgorithm{hsm.PKCS1v15}},
	}
	for _, tt := range tests {
		t.Run(string(tt.dress), func(t *testing.T) {
			var opts []hsmsim.Option
			if tt.dress == hsmsim.DPoD {
				// The latency of the service is not what is tested here.
				opts = append(opts, hsmsim.Set("latency_min_ms", "1"), hsmsim.Set("latency_max_ms", "2"))
			}
			d := newDevice(t, tt.dress, opts...)
			suite := &one{launch: d.launch}
			defer suite.kill()
			report := conformance.Run(t.Context(), conformance.Config{
				Open: suite.open, Kill: func() error { suite.kill(); return nil }, Plugin: string(tt.dress),
				Leaks: func(text string) bool { return strings.Contains(text, d.PIN) },
			})
			if report.Verdict != conformance.VerdictPassed {
				for _, r := range report.Results {
					if r.Status == conformance.Failed {
						t.Error(r)
					}
				}
				t.Fatalf("verdict %s: %+v", report.Verdict, report.Totals)
			}
			for _, result := range report.Results {
				if strings.HasPrefix(result.ID, "S-") && result.Status != conformance.Passed {
					t.Error(result) // every partition here has policy 11
				}
			}
			for _, algorithm := range hsm.WrappingAlgorithms() {
				if declared := slices.Contains(report.Device.WrappingAlgorithms, algorithm); declared == slices.Contains(tt.cannot, algorithm) {
					t.Errorf("%s declared: %v", algorithm, declared)
				}
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
