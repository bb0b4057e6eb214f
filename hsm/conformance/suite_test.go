package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

var update = flag.Bool("update", false, "write the golden files")

func TestHonest(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		var told []Result
		config := d.config()
		config.Progress = func(r Result) { told = append(told, r) }
		report := newSuite(config, sharedRSA).run(t.Context())
		for _, result := range report.Results {
			if result.Status != Passed {
				t.Errorf("%s", result)
			}
		}
		if report.Verdict != VerdictPassed || len(report.LeftBehind) > 0 || len(d.ours(t.Context())) > 0 {
			t.Errorf("verdict %s, left behind %v, on the token %v", report.Verdict, report.LeftBehind, d.ours(t.Context()))
		}
		if !slices.Equal(told, report.Results) {
			t.Error("progress was told something else")
		}
	})
}

func TestChecksAreNumbered(t *testing.T) {
	seen := make(map[string]bool)
	group, last := "", 0
	for _, c := range Checks() {
		var letter string
		var n int
		if _, err := fmt.Sscanf(c.ID, "%1s-%02d", &letter, &n); err != nil || len(c.ID) != 4 {
			t.Errorf("%q is no ID", c.ID)
		}
		if letter != group {
			if seen[letter] {
				t.Errorf("group %s is in two places", letter)
			}
			seen[letter], group, last = true, letter, 0
		}
		if n != last+1 {
			t.Errorf("%s follows number %d", c.ID, last)
		}
		last = n
		if c.Title == "" || c.Proves == "" || c.Basis == "" {
			t.Errorf("%s is not explained", c.ID)
		}
	}
}

func result(t *testing.T, r *Report, id string) Result {
	t.Helper()
	i := slices.IndexFunc(r.Results, func(r Result) bool { return r.ID == id })
	if i < 0 {
		t.Fatalf("no result for %s", id)
	}
	return r.Results[i]
}

// What the configuration leaves out is not run, and takes nothing from the
// verdict.
func TestHooksAreOptional(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		report := newSuite(Config{Open: newBroken().config().Open}, sharedRSA).run(t.Context())
		var missing []string
		for _, result := range report.Results {
			switch result.Status {
			case NotRun:
				missing = append(missing, result.ID)
			case Passed:
			default:
				t.Errorf("%s", result)
			}
		}
		want := []string{"I-09", "G-12", "W-12", "W-13", "R-03", "R-04", "A-01", "A-02", "A-03", "E-04", "E-06"}
		if !slices.Equal(missing, want) || report.Verdict != VerdictPassed {
			t.Errorf("not run: %v, verdict %s", missing, report.Verdict)
		}
	})
}

// Without Destructive no wrong PIN is offered, even if it could be.
func TestNotDestructive(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		d.openWithPIN = func([]byte) error { t.Error("a PIN was offered"); return nil }
		config := d.config()
		config.Destructive = false
		report := newSuite(config, sharedRSA).run(t.Context())
		if report.Verdict != VerdictPassed || result(t, report, "A-02").Status != NotRun {
			t.Errorf("verdict %s", report.Verdict)
		}
	})
}

func TestCryptoUser(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		described(func(info *hsm.Info) { info.Role, info.WrappingAlgorithms = hsm.CryptoUser, nil })(d)
		d.generate = func(context.Context, *session, hsm.KeySpec) (*hsm.Key, error) {
			return nil, &hsm.Error{Reason: hsm.NotPermitted, Code: "CKR_USER_NOT_AUTHORIZED", Detail: "generate"}
		}
		report := runOn(t, d)
		if report.Totals.Failed > 0 || report.Verdict != VerdictPassed {
			t.Errorf("verdict %s", report.Verdict)
			for _, result := range report.Results {
				if result.Status != Passed {
					t.Logf("%s", result)
				}
			}
		}
		g := result(t, report, "G-01")
		if g.Status != NotSupported || g.Code != "CKR_USER_NOT_AUTHORIZED" {
			t.Errorf("%s", g)
		}
	})
}

// A device that lets nobody seal a key says so, and is no worse a device.
func TestSealsAreOptional(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		d.sealKey = func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			if _, err := s.Token.Key(ctx, id); err != nil {
				return nil, err
			}
			return nil, &hsm.Error{Reason: hsm.NotPermitted, Code: "CKR_ATTRIBUTE_READ_ONLY", Detail: "seal"}
		}
		report := runOn(t, d)
		for _, result := range report.Results {
			want, code := Passed, result.Code
			if strings.HasPrefix(result.ID, "S-") && result.ID != "S-05" {
				want, code = NotSupported, "CKR_ATTRIBUTE_READ_ONLY"
			}
			if result.Status != want || result.Code != code {
				t.Errorf("want %s [%s]: %s", want, code, result)
			}
		}
		if report.Verdict != VerdictPassed {
			t.Errorf("verdict %s", report.Verdict)
		}
	})
}

func TestInterrupted(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		d.checkValue = func(ctx context.Context, s *session, id hsm.KeyID) (hsm.CheckValue, error) {
			cancel() // within G-08, when its key is there
			return s.Token.CheckValue(ctx, id)
		}
		report := newSuite(d.config(), sharedRSA).run(ctx)
		if report.Verdict != VerdictIncomplete || report.Totals.Failed > 0 {
			t.Errorf("verdict %s, %+v", report.Verdict, report.Totals)
		}
		if result(t, report, "G-07").Status != Passed || result(t, report, "G-08").Status != NotRun || result(t, report, "R-01").Status != NotRun {
			t.Error("other checks than those after the interruption were not run")
		}
		if r := result(t, report, "Z-01"); r.Status != Passed || len(d.ours(t.Context())) > 0 {
			t.Errorf("left on the token: %v; %s", d.ours(t.Context()), r)
		}
	})
}

func TestPanic(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		d.wrap = func(context.Context, *session, hsm.WrapRequest) ([]byte, error) { panic("key material") }
		report := runOn(t, d)
		w := result(t, report, "W-01")
		if w.Status != Failed || !strings.Contains(w.Detail, "panic") || strings.Contains(w.Detail, "material") {
			t.Errorf("%s", w)
		}
		if len(d.ours(t.Context())) > 0 {
			t.Errorf("left on the token: %v", d.ours(t.Context()))
		}
	})
}

// A token that hangs costs each check its time and never the run.
func TestHangs(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		d.keys = func(context.Context, *session) ([]hsm.Key, error) {
			time.Sleep(time.Hour)
			return nil, errors.New("at last")
		}
		report := runOn(t, d)
		if l := result(t, report, "L-01"); l.Status != Failed || !strings.Contains(l.Detail, "did not return") {
			t.Errorf("%s", l)
		}
		if k := result(t, report, "K-01"); k.Status != Passed {
			t.Errorf("%s", k)
		}
	})
}

// A login that failed is never repeated.
func TestOpensOnceAfterAFailure(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		opens := 0
		d.open = func(*device) error {
			if opens++; opens > 1 {
				return &hsm.Error{Reason: hsm.PINIncorrect, Code: "CKR_PIN_INCORRECT", Detail: "log in"}
			}
			return nil
		}
		report := runOn(t, d)
		if opens != 2 {
			t.Errorf("opened %d times, the last one after a wrong PIN", opens)
		}
		if r := result(t, report, "G-01"); r.Status != NotRun || r.Code != "CKR_PIN_INCORRECT" {
			t.Errorf("%s", r)
		}
		if report.Verdict != VerdictFailed {
			t.Errorf("verdict %s", report.Verdict)
		}
	})
}

func TestReportNamesWhatIsLeft(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		earlier := hsm.NewKeyID()
		d.base.Add(hsm.Key{ID: earlier, Label: DefaultPrefix + "G-01", Type: "AES"}, nil)
		d.destroy = func(_ context.Context, _ *session, id hsm.KeyID) error {
			if id == earlier {
				t.Error("a key of an earlier run was touched")
			}
			return hsm.Errorf(hsm.NotPermitted, "destroy")
		}
		report := runOn(t, d)
		left := d.ours(t.Context())
		left = slices.DeleteFunc(left, func(id hsm.KeyID) bool { return id == earlier })
		for _, id := range left {
			if !slices.Contains(report.LeftBehind, id) {
				t.Errorf("key %s is on the token and not in the report", id)
			}
		}
		if !slices.Equal(report.Earlier, []hsm.KeyID{earlier}) {
			t.Errorf("earlier keys: %v", report.Earlier)
		}
		var text bytes.Buffer
		if err := report.WriteText(&text); err != nil || !strings.Contains(text.String(), string(left[0])) {
			t.Errorf("%v\n%s", err, text.String())
		}
	})
}

func TestReportHidesThePIN(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		d := newBroken()
		d.open = func(*device) error { return hsm.Errorf(hsm.Internal, "login with %s failed", devicePIN) }
		var out bytes.Buffer
		report := runOn(t, d)
		if err := report.WriteJSON(&out); err != nil {
			t.Fatal(err)
		}
		if err := report.WriteText(&out); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), devicePIN) {
			t.Error("the report contains the PIN")
		}
		if result(t, report, "E-04").Status != Failed {
			t.Error("nobody noticed")
		}
	})
}

// reportForGolden has every status, a device code and a key left behind in it.
func reportForGolden(t *testing.T) *Report {
	d := newBroken(hsm.OAEPSHA1, hsm.PKCS1v15)
	fips := true
	describe := described(func(info *hsm.Info) {
		info.FIPS = &fips
		info.Policies = []hsm.Policy{{Number: 5, Name: "Allow secret key wrapping", Value: 1}}
	})
	describe(d)
	d.see = func(k *hsm.Key) { k.Local = false }
	d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
		blob, err := s.Token.Wrap(ctx, req)
		if e, ok := errors.AsType[*hsm.Error](err); ok && e.Reason == hsm.AlgorithmUnsupported {
			e.Code = "CKR_MECHANISM_INVALID"
		}
		return blob, err
	}
	config := d.config()
	config.Kill, config.Destructive, config.Plant = nil, false, nil
	config.RunBy = []string{"kmsbrokerd v1.2", "kmsbrokerctl v1.2"}
	config.Plugin, config.PluginSHA256 = "/usr/libexec/kmsbroker/plugins/luna", strings.Repeat("0123", 16)
	report := newSuite(config, sharedRSA).run(t.Context())
	report.LeftBehind = []hsm.KeyID{"00112233445566778899aabbccddeeff"}
	report.Earlier = []hsm.KeyID{"ffeeddccbbaa99887766554433221100"}
	return report
}

// The forms of the report are read by programs and kept for years.
func TestReportFormats(t *testing.T) {
	inClockwork(t, func(t *testing.T) {
		report := reportForGolden(t)
		var asJSON, text bytes.Buffer
		if err := report.WriteJSON(&asJSON); err != nil {
			t.Fatal(err)
		}
		if err := report.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		golden(t, "report.json", asJSON.Bytes())
		golden(t, "report.txt", text.Bytes())

		var back Report
		if err := json.Unmarshal(asJSON.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		if err := back.WriteJSON(&again); err != nil || !bytes.Equal(again.Bytes(), asJSON.Bytes()) {
			t.Errorf("a report that was read says something else: %v", err)
		}
	})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (write it with -update):\n%s", name, got)
	}
}

// The suite is linked into the daemon, where testing and PKCS#11 have no place.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, forbidden := range []string{"testing", "github.com/miekg/pkcs11", "github.com/kmsbroker/kmsbroker/hsm/hsmtest"} {
		if slices.Contains(strings.Fields(string(out)), forbidden) {
			t.Errorf("the suite imports %s", forbidden)
		}
	}
}
