package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/kmsapi/reliable"
)

// Watch tells how things are from now on; status is asked once for each answer.
// It is called once.
func (m *Metrics) Watch(status func() broker.Status) {
	m.registry.MustRegister(newState(status))
}

// state tells what has a value at every moment and need not be counted.
type state struct {
	status func() broker.Status
	all    []*prometheus.Desc

	backendState    *prometheus.Desc
	backendRestarts *prometheus.Desc
	circuitState    *prometheus.Desc
	auditRecords    *prometheus.Desc
	auditWritable   *prometheus.Desc
	auditUnwritten  *prometheus.Desc
	auditSuppressed *prometheus.Desc
	auditPending    *prometheus.Desc
	keys            *prometheus.Desc
	cmks            *prometheus.Desc
	expiresIn       *prometheus.Desc
	renewals        *prometheus.Desc
	unfinished      *prometheus.Desc
	dataKeys        *prometheus.Desc
	dataKeyUses     *prometheus.Desc
	dataKeyFetches  *prometheus.Desc
	proxy           proxyState
}

func newState(status func() broker.Status) *state {
	s := &state{status: status}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
		s.all = append(s.all, d)
		return d
	}
	s.backendState = desc("backend_state",
		"1 for the state that an HSM backend is in, 0 for the others.",
		labelBackend, labelState)
	s.backendRestarts = desc("backend_restarts_total",
		"How often the plugin process of a backend that was ready had to be replaced.",
		labelBackend)
	s.circuitState = desc("kms_circuit_state",
		"1 for the state that the circuit of an endpoint is in, 0 for the others.",
		labelRegion, labelEndpoint, labelState)
	s.auditRecords = desc("audit_records_total",
		"Records in the audit trail, from its beginning.")
	s.auditWritable = desc("audit_writable",
		"1 while the audit trail can be written, 0 when it cannot or is short of space: then applications are not answered, unless the configuration lets them, and administrators change nothing.")
	s.auditUnwritten = desc("audit_unwritten_total",
		"Calls that could not be recorded, refused or answered all the same.",
		labelOutcome)
	s.auditSuppressed = desc("audit_suppressed_denials_total",
		"Refusals that have no record of their own and are counted in records of many.")
	s.auditPending = desc("audit_pending_records",
		"Records on their way to the disk.")
	s.keys = desc("keys",
		"Keys in the registry.")
	s.cmks = desc("cmks",
		"CMKs of all keys and generations, by the state that KMS last reported.",
		labelRegion, labelState)
	s.expiresIn = desc("key_material_expires_in_seconds",
		"Seconds until the material of a key expires, negative afterwards; of several generations, the one that expires first.",
		labelKey, labelRegion)
	s.renewals = desc("renewals_total",
		"Attempts of the daemon to import expiring material again ahead of time.",
		labelOutcome)
	s.unfinished = desc("unfinished_imports",
		"Imports, rotations and extensions that were begun and have not ended.")
	s.dataKeys = desc("data_keys",
		"Data keys of envelopes in the cache.")
	s.dataKeyUses = desc("data_key_uses_total",
		"Uses of data keys for messages and for the health of Kubernetes providers, by where the data key came from.",
		labelSource)
	s.dataKeyFetches = desc("data_key_fetches_total",
		"Attempts to get a data key from KMS, each for all callers that wait for it.",
		labelOutcome)
	s.proxy.describe(desc)
	return s
}

// Describe implements prometheus.Collector.
func (s *state) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range s.all {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(metrics chan<- prometheus.Metric) {
	send := sender(metrics)
	now := s.status()
	for _, b := range now.Backends {
		for _, state := range backend.States() {
			send.gauge(s.backendState, one(b.State == state), b.Name, string(state))
		}
		send.counter(s.backendRestarts, float64(b.Restarts), b.Name)
	}
	s.collectCircuits(send, now.Regions)
	send.counter(s.auditRecords, float64(now.AuditSeq))
	send.gauge(s.auditWritable, one(now.AuditErr == nil))
	send.counter(s.auditUnwritten, float64(now.Audit.Refused), "refused")
	send.counter(s.auditUnwritten, float64(now.Audit.Unrecorded), "answered")
	send.counter(s.auditSuppressed, float64(now.Audit.SuppressedDenials))
	send.gauge(s.auditPending, float64(now.Audit.Pending))
	s.collectKeys(send, now)
	cache := now.DataKeys
	send.gauge(s.dataKeys, float64(cache.Keys))
	send.counter(s.dataKeyUses, float64(cache.Stats.Cached), "cache")
	send.counter(s.dataKeyUses, float64(cache.Stats.Fetched), "kms")
	send.counter(s.dataKeyUses, float64(cache.Stats.Offline), "offline")
	send.counter(s.dataKeyFetches, float64(cache.Stats.Answered), "ok")
	send.counter(s.dataKeyFetches, float64(cache.Stats.Failed), "failed")
	s.proxy.collect(send, now.Proxy)
}

func (s *state) collectCircuits(send sender, regions []broker.RegionStatus) {
	for _, r := range regions {
		// An address that is configured twice has two circuits.
		circuits := map[string]reliable.State{}
		for _, a := range r.Addresses {
			circuits[a.Name] = a.State
		}
		for address, current := range circuits {
			for _, state := range reliable.States() {
				send.gauge(s.circuitState, one(current == state), r.Region, address, string(state))
			}
		}
	}
}

func (s *state) collectKeys(send sender, now broker.Status) {
	send.gauge(s.keys, float64(now.Keys))
	for cmk, n := range now.CMKs {
		send.gauge(s.cmks, float64(n), cmk.Region, string(cmk.State))
	}
	type place struct{ key, region string }
	told := map[place]bool{}
	for _, e := range now.Expiring { // the soonest first
		if p := (place{e.Key, e.Region}); !told[p] {
			told[p] = true
			send.gauge(s.expiresIn, e.At.Sub(now.At).Seconds(), e.Key, e.Region)
		}
	}
	send.counter(s.renewals, float64(now.Renewals.Done), "ok")
	send.counter(s.renewals, float64(now.Renewals.Failed), "failed")
	send.gauge(s.unfinished, float64(len(now.Unfinished)))
}

// sender is where a scrape collects.
type sender chan<- prometheus.Metric

func (s sender) gauge(desc *prometheus.Desc, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func (s sender) counter(desc *prometheus.Desc, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, labels...)
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
