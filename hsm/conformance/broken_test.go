package conformance

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// defect is one thing wrong with a device.
type defect struct {
	check string // the one that fails
	name  string
	spoil func(d *device)
	// dependent are the checks that cannot be made without the one that fails.
	dependent []string
}

// inClockwork gives a run a clock that moves only while everything waits, so
// that hour-long hangs cost nothing.
func inClockwork(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fn(t)
		// Calls that were given up are let come to their end.
		time.Sleep(24 * time.Hour)
	})
}

// sharedRSA saves the tests from making keys for each run.
var sharedRSA = newWrappingKeys()

func runOn(t *testing.T, d *device) *Report {
	t.Helper()
	return newSuite(d.config(), sharedRSA).run(t.Context())
}

// Every check fails for the defect that it is there for, and no other check
// does.
func TestDefects(t *testing.T) {
	covered := make(map[string]bool)
	for _, defect := range defects() {
		covered[defect.check] = true
		t.Run(defect.check+" "+defect.name, func(t *testing.T) {
			t.Parallel()
			inClockwork(t, func(t *testing.T) {
				d := newBroken()
				defect.spoil(d)
				report := runOn(t, d)
				for _, result := range report.Results {
					want := Passed
					switch {
					case result.ID == defect.check:
						want = Failed
					case slices.Contains(defect.dependent, result.ID):
						want = NotRun
					}
					if result.Status != want {
						t.Errorf("want %s: %s", want, result)
					}
					if result.Status == Failed {
						t.Logf("%s", result)
					}
				}
				if report.Verdict != VerdictFailed {
					t.Errorf("the verdict is %s", report.Verdict)
				}
			})
		})
	}
	for _, c := range Checks() {
		if !covered[c.ID] {
			t.Errorf("no defect shows that %s can fail", c.ID)
		}
	}
}

func defects() []defect {
	return slices.Concat(
		identityDefects(), keyDefects(), listDefects(), wrapDefects(), sealDefects(), lifeDefects(), loadDefects(),
		endDefects(), loginDefects(), errorDefects(),
	)
}

func described(change func(info *hsm.Info)) func(d *device) {
	return func(d *device) {
		d.describe = func(ctx context.Context, s *session) (*hsm.Info, error) {
			info, err := s.Token.Describe(ctx)
			if err == nil {
				change(info)
			}
			return info, err
		}
	}
}
