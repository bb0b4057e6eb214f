package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kmsbroker/kmsbroker/kmsapi/reliable"
)

// kmsMetrics are of the calls to KMS.
type kmsMetrics struct {
	calls          *prometheus.CounterVec
	waiting        *prometheus.HistogramVec
	attempts       *prometheus.CounterVec
	attemptSeconds *prometheus.HistogramVec
	retries        *prometheus.CounterVec
	circuitChanges *prometheus.CounterVec
}

func newKMSMetrics() kmsMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "kms", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: "kms", Name: name, Help: help, Buckets: buckets,
		}, labels)
	}
	return kmsMetrics{
		calls: counter("calls_total",
			"Calls to KMS, each with all its attempts.",
			labelRegion, labelOperation, labelOutcome),
		waiting: histogram("wait_seconds",
			"Time that a call waited for its turn under the quota and for a free connection.",
			labelRegion, labelOperation),
		attempts: counter("attempts_total",
			"Requests to KMS.",
			labelRegion, labelEndpoint, labelOperation, labelOutcome),
		attemptSeconds: histogram("attempt_duration_seconds",
			"Time from a request to the answer of KMS.",
			labelRegion, labelEndpoint, labelOperation),
		retries: counter("retries_total",
			"Requests to KMS that repeated one that failed.",
			labelRegion, labelOperation),
		circuitChanges: counter("circuit_changes_total",
			"Changes of an endpoint's circuit, by the state that it came into.",
			labelRegion, labelEndpoint, labelState),
	}
}

func (k kmsMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{k.calls, k.waiting, k.attempts, k.attemptSeconds, k.retries, k.circuitChanges}
}

// KMS counts what a client in that region does. Several clients may share a
// region.
func (m *Metrics) KMS(region string) reliable.Observer { return kmsObserver{m.kms, region} }

type kmsObserver struct {
	kmsMetrics
	region string
}

// Called implements reliable.Observer.
func (o kmsObserver) Called(c reliable.Call) {
	o.calls.WithLabelValues(o.region, c.Operation, string(c.Outcome)).Inc()
	o.waiting.WithLabelValues(o.region, c.Operation).Observe(c.Waited.Seconds())
}

// Attempted implements reliable.Observer.
func (o kmsObserver) Attempted(a reliable.Attempt) {
	o.attempts.WithLabelValues(o.region, a.Endpoint, a.Operation, string(a.Outcome)).Inc()
	o.attemptSeconds.WithLabelValues(o.region, a.Endpoint, a.Operation).Observe(a.Took.Seconds())
	if a.Number > 1 {
		o.retries.WithLabelValues(o.region, a.Operation).Inc()
	}
}

// CircuitChanged implements reliable.Observer.
func (o kmsObserver) CircuitChanged(endpoint string, state reliable.State) {
	o.circuitChanges.WithLabelValues(o.region, endpoint, string(state)).Inc()
}
