package system

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// scrape reads the metrics and returns the value of each series.
func scrape(t *testing.T, s *stage.Stage) map[string]float64 {
	t.Helper()
	series := map[string]float64{}
	for line := range strings.Lines(s.Metrics()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if value == "" {
			name, value, _ = strings.Cut(strings.TrimSpace(line), " ")
		}
		var err error
		if series[name], err = strconv.ParseFloat(value, 64); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	return series
}

// TestMetrics: what an administrator, an application and KMS did can be read from
// the metrics socket.
func TestMetrics(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	key := s.Import("app-1", "--expires", "90d", "--renew", "14d")
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil)
	s.Refused(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "other"), 4)

	const (
		expires  = `kmsbroker_key_material_expires_in_seconds{key="app-1",region="` + stage.Region + `"`
		failed   = `kmsbroker_renewals_total{outcome="failed"`
		writable = `kmsbroker_audit_writable`
	)
	got := scrape(t, s)
	for series, want := range map[string]float64{
		`kmsbroker_calls_total{door="application",operation="Encrypt",outcome="ok"`:                                   1,
		`kmsbroker_calls_total{door="application",operation="Encrypt",outcome="denied"`:                               1,
		`kmsbroker_call_duration_seconds_count{door="application",operation="Encrypt",outcome="ok"`:                   1,
		`kmsbroker_calls_total{door="control",operation="ImportKey",outcome="ok"`:                                     1,
		`kmsbroker_kms_calls_total{operation="CreateKey",outcome="ok",region="` + stage.Region + `"`:                  1,
		`kmsbroker_backend_state{backend="hsm",state="ready"`:                                                         1,
		`kmsbroker_backend_restarts_total{backend="hsm"`:                                                              0,
		`kmsbroker_cmks{region="` + stage.Region + `",state="Enabled"`:                                                1,
		`kmsbroker_kms_circuit_state{endpoint="` + s.EndpointURL() + `",region="` + stage.Region + `",state="closed"`: 1,
		`kmsbroker_unfinished_imports`:                                                                                0,
		writable:                                                                                                      1,
		failed:                                                                                                        0,
	} {
		if value, ok := got[series]; !ok || value != want {
			t.Errorf("%s is %v, %t; want %v", series, value, ok, want)
		}
	}
	const day = 24 * 60 * 60
	if left := got[expires]; left <= 89*day || left > 90*day {
		t.Errorf("%s is %v", expires, left)
	}

	// Material that is due is renewed when the daemon starts; KMS refuses.
	soon := time.Now().Add(13 * 24 * time.Hour).UTC().Format(time.RFC3339)
	s.Must(s.Ctl(s.Control(), "key", "reimport", "app-1", "--expires", soon), nil)
	daemon.Stop()
	s.Intercept(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Header.Get("X-Acs-Action") != "GetParametersForImport" {
			return true
		}
		refuse(w, http.StatusForbidden, "Forbidden.NoPermission")
		return false
	})
	daemon = s.Start()
	if err := daemon.Wait("key material could not be renewed"); err != nil {
		t.Fatal(err)
	}
	got = scrape(t, s)
	if left := got[expires]; got[failed] != 1 || left <= 12*day || left > 13*day {
		t.Errorf("%v failed renewals, %v seconds left", got[failed], left)
	}
	shown := s.Ctl(s.Control(), "status")
	s.Must(shown, nil)
	for _, word := range []string{key.KeyID, "failed 20", "Forbidden.NoPermission"} {
		if !strings.Contains(shown.Stdout, word) {
			t.Errorf("status lacks %q:\n%s", word, shown.Stdout)
		}
	}

	if err := os.Remove(s.Path("state/audit/audit-00000000000000000001.log")); err != nil {
		t.Fatal(err)
	}
	s.Refused(s.Ctl(s.Control(), "key", "disable", "app-1"), 1, "audit trail")
	s.Refused(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), 1, "audit trail")
	if got := scrape(t, s); got[writable] != 0 {
		t.Errorf("%s is %v without a trail", writable, got[writable])
	}
}

// TestMetricsSocket is for its group alone, and can be switched off.
func TestMetricsSocket(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	path := s.Path("run/metrics.sock")
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("%v, %v", info, err)
	}
	daemon.Stop()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a stopped daemon left its socket: %v", err)
	}
	s.Write("kmsbrokerd.toml", s.Read("kmsbrokerd.toml")+"\n[sockets]\nmetrics = ''\n", 0o644)
	s.Start()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("switched off: %v", err)
	}
}
