package metrics

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/serve"
)

// buckets reach from an answer without KMS to the longest import, in seconds.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// callMetrics are of the calls at the broker's doors.
type callMetrics struct {
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	refused *prometheus.CounterVec
	remade  *prometheus.CounterVec
}

func newCallMetrics() callMetrics {
	labels := []string{labelDoor, labelOperation, labelOutcome}
	return callMetrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "calls_total",
			Help: "Calls that were answered.",
		}, labels),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "call_duration_seconds", Buckets: buckets,
			Help: "Time from the arrival of a call to its answer, with authorization, KMS and the audit trail.",
		}, labels),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "refused_total",
			Help: "Connections and calls that were refused because their caller, or all callers without a grant, had too many.",
		}, []string{labelDoor, labelWhat}),
		remade: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "sockets_remade_total",
			Help: "Sockets that somebody had removed and the daemon has made again.",
		}, []string{labelDoor}),
	}
}

func (c callMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{c.total, c.seconds, c.refused, c.remade}
}

// Door counts the calls at the door of that name.
func (m *Metrics) Door(name string) serve.Observe {
	return func(operation string, err error, took time.Duration) {
		labels := []string{name, operation, outcome(err)}
		m.calls.total.WithLabelValues(labels...).Inc()
		m.calls.seconds.WithLabelValues(labels...).Observe(took.Seconds())
	}
}

// Refused counts what the door of that name did not take.
func (m *Metrics) Refused(name string) func(what string) {
	for _, what := range []string{serve.RefusedConnection, serve.RefusedCall} {
		m.calls.refused.WithLabelValues(name, what)
	}
	return func(what string) { m.calls.refused.WithLabelValues(name, what).Inc() }
}

// SocketRemade counts a socket of a door that was removed.
func (m *Metrics) SocketRemade(door string) { m.calls.remade.WithLabelValues(door).Inc() }

// outcome is "ok", "abandoned" by a caller that left, or the kind of the failure.
func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, context.Canceled):
		return "abandoned"
	default:
		return strings.ReplaceAll(failure.From(err).Kind.String(), " ", "_")
	}
}
