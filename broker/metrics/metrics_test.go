package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/datakey"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/broker/proxy"
	"github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/reliable"
)

const day = 24 * time.Hour

// busy are metrics of a broker in which everything happened that is counted.
func busy() *Metrics {
	m := New("v1")
	call := m.Door("application")
	call("Encrypt", nil, 20*time.Millisecond)
	call("Encrypt", failure.New(failure.NotFound, "KEY_NOT_FOUND", "no"), time.Millisecond)
	call("Decrypt", fmt.Errorf("KMS: %w", context.Canceled), time.Second)
	call("Decrypt", errors.New("x"), time.Second)
	m.Refused("application")(serve.RefusedCall)
	m.SocketRemade("application")

	kms := m.KMS("cn-hangzhou")
	kms.Attempted(reliable.Attempt{Operation: "Encrypt", Endpoint: "a", Number: 1, Outcome: reliable.Broken, Took: time.Second})
	kms.CircuitChanged("a", reliable.Open)
	kms.Attempted(reliable.Attempt{Operation: "Encrypt", Endpoint: "b", Number: 2, Outcome: reliable.OK, Took: time.Second})
	kms.Called(reliable.Call{Operation: "Encrypt", Outcome: reliable.OK, Attempts: 2, Waited: 30 * time.Millisecond})

	now := time.Now()
	m.Watch(func() broker.Status {
		return broker.Status{
			At: now,
			Regions: []broker.RegionStatus{{Region: "cn-hangzhou", Addresses: []reliable.EndpointStatus{
				{Name: "a", State: reliable.Open}, {Name: "b", State: reliable.Closed}, {Name: "b", State: reliable.Closed},
			}}},
			Backends: []backend.Status{{Name: "hsm", State: backend.Blocked, Restarts: 3}},
			Proxy: []proxy.Status{{
				Name: "hsm", Clients: 21, ClientSessions: 22, Open: 18, Parked: 5, Idle: 6, Most: 23, Waiting: 24,
				Counts: proxy.Counts{Late: 25, Resumable: 26, Lost: 27},
			}},
			Keys: 2,
			CMKs: map[broker.CMKState]int{
				{Region: "cn-hangzhou", State: kmsapi.Enabled}: 2, {Region: "cn-shanghai", State: kmsapi.PendingImport}: 1,
			},
			Expiring: []broker.Expiry{
				{Key: "k", Region: "cn-hangzhou", At: now.Add(-time.Hour)},
				{Key: "k", Region: "cn-shanghai", At: now.Add(day)},
				{Key: "k", Region: "cn-hangzhou", At: now.Add(2 * day)}, // a later generation
			},
			Renewals:   broker.Renewals{Done: 4, Failed: 1},
			Unfinished: make([]*keyring.Import, 1),
			DataKeys:   datakey.Status{Keys: 6, Stats: datakey.Stats{Cached: 10, Fetched: 11, Offline: 12, Answered: 13, Failed: 14}},
			AuditSeq:   99, AuditErr: errors.New("no space left on device"),
		}
	})
	return m
}

// read returns what the handler answers.
func read(t *testing.T, m *Metrics) string {
	t.Helper()
	server := httptest.NewServer(m.Handler(slog.New(slog.NewTextHandler(t.Output(), nil))))
	defer server.Close()
	resp, err := http.Get(server.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if kind := resp.Header.Get("Content-Type"); err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Fatalf("status %d, %s, %v:\n%s", resp.StatusCode, kind, err, body)
	}
	return string(body)
}

func TestValues(t *testing.T) {
	m := busy()
	if _, err := m.registry.Gather(); err != nil {
		t.Error(err)
	}
	text := read(t, m)
	for _, want := range []string{
		`kmsbroker_calls_total{door="application",operation="Encrypt",outcome="ok"} 1`,
		`kmsbroker_calls_total{door="application",operation="Encrypt",outcome="not_found"} 1`,
		`kmsbroker_calls_total{door="application",operation="Decrypt",outcome="abandoned"} 1`,
		`kmsbroker_calls_total{door="application",operation="Decrypt",outcome="internal"} 1`,
		`kmsbroker_call_duration_seconds_bucket{door="application",operation="Encrypt",outcome="ok",le="0.01"} 0`,
		`kmsbroker_call_duration_seconds_bucket{door="application",operation="Encrypt",outcome="ok",le="0.025"} 1`,
		`kmsbroker_kms_calls_total{operation="Encrypt",outcome="ok",region="cn-hangzhou"} 1`,
		`kmsbroker_kms_attempts_total{endpoint="a",operation="Encrypt",outcome="broken",region="cn-hangzhou"} 1`,
		`kmsbroker_kms_attempts_total{endpoint="b",operation="Encrypt",outcome="ok",region="cn-hangzhou"} 1`,
		`kmsbroker_kms_attempt_duration_seconds_sum{endpoint="b",operation="Encrypt",region="cn-hangzhou"} 1`,
		`kmsbroker_kms_retries_total{operation="Encrypt",region="cn-hangzhou"} 1`,
		`kmsbroker_kms_wait_seconds_sum{operation="Encrypt",region="cn-hangzhou"} 0.03`,
		`kmsbroker_kms_circuit_changes_total{endpoint="a",region="cn-hangzhou",state="open"} 1`,
		`kmsbroker_kms_circuit_state{endpoint="a",region="cn-hangzhou",state="open"} 1`,
		`kmsbroker_kms_circuit_state{endpoint="a",region="cn-hangzhou",state="closed"} 0`,
		`kmsbroker_kms_circuit_state{endpoint="b",region="cn-hangzhou",state="closed"} 1`,
		`kmsbroker_backend_state{backend="hsm",state="blocked"} 1`,
		`kmsbroker_backend_state{backend="hsm",state="ready"} 0`,
		`kmsbroker_backend_restarts_total{backend="hsm"} 3`,
		`kmsbroker_pkcs11_clients{backend="hsm"} 21`,
		`kmsbroker_pkcs11_client_sessions{backend="hsm"} 22`,
		`kmsbroker_pkcs11_sessions{backend="hsm",state="lent"} 7`,
		`kmsbroker_pkcs11_sessions{backend="hsm",state="parked"} 5`,
		`kmsbroker_pkcs11_sessions{backend="hsm",state="idle"} 6`,
		`kmsbroker_pkcs11_max_sessions{backend="hsm"} 23`,
		`kmsbroker_pkcs11_waiting{backend="hsm"} 24`,
		`kmsbroker_pkcs11_wait_timeouts_total{backend="hsm"} 25`,
		`kmsbroker_pkcs11_operations_taken_total{backend="hsm",outcome="resumable"} 26`,
		`kmsbroker_pkcs11_operations_taken_total{backend="hsm",outcome="lost"} 27`,
		`kmsbroker_audit_records_total 99`,
		`kmsbroker_audit_writable 0`,
		`kmsbroker_keys 2`,
		`kmsbroker_cmks{region="cn-hangzhou",state="Enabled"} 2`,
		`kmsbroker_cmks{region="cn-shanghai",state="PendingImport"} 1`,
		`kmsbroker_key_material_expires_in_seconds{key="k",region="cn-hangzhou"} -3600`,
		`kmsbroker_key_material_expires_in_seconds{key="k",region="cn-shanghai"} 86400`,
		`kmsbroker_renewals_total{outcome="ok"} 4`,
		`kmsbroker_renewals_total{outcome="failed"} 1`,
		`kmsbroker_unfinished_imports 1`,
		`kmsbroker_data_keys 6`,
		`kmsbroker_data_key_uses_total{source="cache"} 10`,
		`kmsbroker_data_key_uses_total{source="kms"} 11`,
		`kmsbroker_data_key_uses_total{source="offline"} 12`,
		`kmsbroker_data_key_fetches_total{outcome="ok"} 13`,
		`kmsbroker_data_key_fetches_total{outcome="failed"} 14`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestOutcomes: every kind of failure has an outcome of its own that is one word.
func TestOutcomes(t *testing.T) {
	seen := map[string]bool{outcome(nil): true, outcome(context.Canceled): true}
	for _, kind := range failure.Kinds() {
		word := outcome(failure.New(kind, "REASON", "it went wrong"))
		if seen[word] || !regexp.MustCompile(`^[a-z_]+$`).MatchString(word) {
			t.Errorf("%v has the outcome %q", kind, word)
		}
		seen[word] = true
	}
}

// TestConventions holds the names to those of Prometheus.
func TestConventions(t *testing.T) {
	families, err := busy().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// row is a metric as the table in the documentation has it.
type row struct{ kind, labels, help string }

// TestDocumentation holds docs/metrics.md and the code together: what is told is
// in the table, and what is in the table is told.
func TestDocumentation(t *testing.T) {
	documented := documentation(t)
	m := busy()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]row{}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), namespace) { // the others are documented by their makers
			told[f.GetName()] = rowOf(f)
		}
	}
	for _, name := range registered(m) {
		if _, ok := told[name]; !ok && strings.HasPrefix(name, namespace) {
			t.Errorf("this test does not make %s happen", name)
		}
	}
	for name, want := range told {
		if got, ok := documented[name]; !ok || got != want {
			t.Errorf("docs/metrics.md says of %s\n%+v, should be\n| `%s` | %s | %s | %s |", name, got, name, want.kind, want.labels, want.help)
		}
	}
	for name := range documented {
		if _, ok := told[name]; !ok {
			t.Errorf("docs/metrics.md has %s, which there is not", name)
		}
	}
}

// TestDocumentedValues: every state and outcome is explained.
func TestDocumentedValues(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	words := []string{outcome(nil), outcome(context.Canceled)}
	for _, kind := range failure.Kinds() {
		words = append(words, outcome(failure.New(kind, "REASON", "it went wrong")))
	}
	for _, state := range backend.States() {
		words = append(words, string(state))
	}
	for _, state := range reliable.States() {
		words = append(words, string(state))
	}
	for _, word := range words {
		if !strings.Contains(string(text), "`"+word+"`") {
			t.Errorf("docs/metrics.md does not mention %s", word)
		}
	}
}

// documentation reads the rows "| `name` | type | `label`, `label` | help |".
func documentation(t *testing.T) map[string]row {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]row{}
	for _, match := range regexp.MustCompile("(?m)^\\| `("+namespace+"_[a-z0-9_]+)` \\| (\\w+) \\| (.*?) ?\\| (.*) \\|$").FindAllStringSubmatch(string(text), -1) {
		if _, twice := rows[match[1]]; twice {
			t.Errorf("docs/metrics.md has %s twice", match[1])
		}
		rows[match[1]] = row{match[2], match[3], match[4]}
	}
	return rows
}

// rowOf is a metric as the code has it: all series have the same labels.
func rowOf(f *dto.MetricFamily) row {
	var labels []string
	for _, pair := range f.GetMetric()[0].GetLabel() {
		labels = append(labels, "`"+pair.GetName()+"`")
	}
	return row{strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp()}
}

// registered lists the names of all metrics, also of those without a series.
func registered(m *Metrics) []string {
	descs := make(chan *prometheus.Desc)
	go func() { defer close(descs); m.registry.Describe(descs) }()
	names := map[string]bool{}
	for d := range descs {
		names[regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(d.String())[1]] = true
	}
	return slices.Sorted(maps.Keys(names))
}

func TestOnlyMetrics(t *testing.T) {
	server := httptest.NewServer(New("v1").Handler(slog.New(slog.DiscardHandler)))
	defer server.Close()
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/", http.StatusNotFound},
		{http.MethodGet, "/debug/pprof/", http.StatusNotFound},
		{http.MethodPost, "/metrics", http.StatusMethodNotAllowed},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, server.URL+tt.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s %s: status %d, want %d", tt.method, tt.path, resp.StatusCode, tt.want)
		}
	}
}
