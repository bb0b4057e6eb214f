package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kmsbroker/kmsbroker/broker/proxy"
)

// proxyState tells how the clients of the PKCS#11 proxy share the tokens.
type proxyState struct {
	clients        *prometheus.Desc
	clientSessions *prometheus.Desc
	sessions       *prometheus.Desc
	maxSessions    *prometheus.Desc
	waiting        *prometheus.Desc
	late           *prometheus.Desc
	taken          *prometheus.Desc
}

// describe makes the descriptions with desc.
func (p *proxyState) describe(desc func(name, help string, labels ...string) *prometheus.Desc) {
	p.clients = desc("pkcs11_clients",
		"PKCS#11 clients that have a session on the token of a backend.",
		labelBackend)
	p.clientSessions = desc("pkcs11_client_sessions",
		"Sessions that PKCS#11 clients have open. The token does not know of them.",
		labelBackend)
	p.sessions = desc("pkcs11_sessions",
		"Sessions of the token that the proxy has open, by what they are for.",
		labelBackend, labelState)
	p.maxSessions = desc("pkcs11_max_sessions",
		"Sessions of the token that the proxy may open; 0 while the token is away.",
		labelBackend)
	p.waiting = desc("pkcs11_waiting",
		"PKCS#11 calls that wait for a session of the token.",
		labelBackend)
	p.late = desc("pkcs11_wait_timeouts_total",
		"PKCS#11 calls that failed because no session of the token became free in time.",
		labelBackend)
	p.taken = desc("pkcs11_operations_taken_total",
		"Operations that a client had not finished and whose session was given to a call that waited.",
		labelBackend, labelOutcome)
}

func (p *proxyState) collect(send sender, tokens []proxy.Status) {
	for i := range tokens {
		t := &tokens[i]
		send.gauge(p.clients, float64(t.Clients), t.Name)
		send.gauge(p.clientSessions, float64(t.ClientSessions), t.Name)
		send.gauge(p.sessions, float64(t.Lent()), t.Name, "lent")
		send.gauge(p.sessions, float64(t.Parked), t.Name, "parked")
		send.gauge(p.sessions, float64(t.Idle), t.Name, "idle")
		send.gauge(p.maxSessions, float64(t.Most), t.Name)
		send.gauge(p.waiting, float64(t.Waiting), t.Name)
		send.counter(p.late, float64(t.Counts.Late), t.Name)
		send.counter(p.taken, float64(t.Counts.Resumable), t.Name, "resumable")
		send.counter(p.taken, float64(t.Counts.Lost), t.Name, "lost")
	}
}
