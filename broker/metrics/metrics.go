// Package metrics is what the broker tells a monitoring system. It alone owns
// the names, the labels and the help texts, so that a dashboard or an alert has
// one place to be held against; docs/metrics.md is the same list for people.
//
// What happens is counted as it happens, by [Metrics.Door] and [Metrics.KMS]. How
// things are is read from the core's status when somebody asks. Values of labels
// come from the configuration, the key registry and closed sets, never from a
// caller.
package metrics

import (
	"log/slog"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "kmsbroker"

// Labels.
const (
	labelBackend   = "backend"
	labelDoor      = "door"
	labelEndpoint  = "endpoint"
	labelKey       = "key"
	labelOperation = "operation"
	labelOutcome   = "outcome"
	labelRegion    = "region"
	labelState     = "state"
	labelSource    = "source"
	labelWhat      = "what"
)

// Metrics of one broker. Its methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry
	calls    callMetrics
	kms      kmsMetrics
}

// New makes the metrics of a program of that version.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), calls: newCallMetrics(), kms: newKMSMetrics()}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info",
		Help: "1, with the version of kmsbrokerd and of the Go it was built with.",
	}, []string{"version", "go_version"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector())
	m.registry.MustRegister(m.calls.all()...)
	m.registry.MustRegister(m.kms.all()...)
	return m
}

// maxScrapes is how many may read at a time.
const maxScrapes = 4

// Handler serves the metrics at /metrics in the text format of Prometheus.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		// One series that cannot be told must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelError),
		MaxRequestsInFlight: maxScrapes,
	}))
	return mux
}
