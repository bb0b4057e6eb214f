package devices

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// TestConformance: every device passes, declares what its kind can do, and does
// not count a single PIN.
func TestConformance(t *testing.T) {
	tests := []struct {
		dress        hsmsim.Dress
		cannot       []hsm.WrappingAlgorithm
		notSupported []string // checks
	}{
		{hsmsim.Luna, nil, nil},
		{hsmsim.LunaFIPS, []hsm.WrappingAlgorithm{hsm.PKCS1v15}, []string{"W-03"}},
		{hsmsim.LunaOldFirmware, []hsm.WrappingAlgorithm{hsm.OAEPSHA256}, []string{"W-01", "W-04"}},
		{hsmsim.LunaHA, nil, nil},
		{hsmsim.DPoD, []hsm.WrappingAlgorithm{hsm.PKCS1v15}, []string{"W-03"}},
	}
	// Nobody plants a key beside the plugin here, and what others can see of its
	// process is looked at on SoftHSM and opencryptoki.
	notHere := []string{"G-12", "W-12", "E-06"}
	for _, tt := range tests {
		t.Run(string(tt.dress), func(t *testing.T) {
			var opts []hsmsim.Option
			if tt.dress == hsmsim.DPoD {
				// The latency of the service is not what is tested here.
				opts = append(opts, hsmsim.Set("latency_min_ms", "1"), hsmsim.Set("latency_max_ms", "2"))
			}
			d := newDevice(t, tt.dress, opts...)
			var asked hsm.TokenID
			config := d.config
			config.Asked = func(token hsm.TokenID) { asked = token }
			suite := &one{launch: backend.LaunchPlugin(config)}
			defer suite.kill()
			report := conformance.Run(t.Context(), conformance.Config{
				Open: suite.open, Kill: func() error { suite.kill(); return nil }, Plugin: string(tt.dress),
				OpenWithPIN: func(ctx context.Context, pin []byte) (hsm.Token, error) {
					other := &one{launch: backend.LaunchPluginWith(config, pin), process: suite.process}
					suite.process = nil
					token, err := other.open(ctx)
					suite.process = other.process
					return token, err
				},
				Leaks:       func(text string) bool { return strings.Contains(text, d.PIN) },
				Asked:       func() hsm.TokenID { return asked },
				Objects:     func(context.Context) (int, error) { return len(d.Stored()), nil },
				Destructive: true,
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
				want := conformance.Passed
				switch {
				case slices.Contains(tt.notSupported, result.ID):
					want = conformance.NotSupported
				case slices.Contains(notHere, result.ID):
					want = conformance.NotRun
				}
				if result.Status != want {
					t.Errorf("%s, want %s", result, want)
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
