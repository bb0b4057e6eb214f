package config

import "time"

// Proxy bounds what the applications behind the PKCS#11 socket take of a token's
// sessions.
type Proxy struct {
	SessionWait   time.Duration // how long a call waits for a session that another one has
	OperationIdle time.Duration // how long an unfinished operation keeps its session without a call
	MaxSessions   int           // that one user has open
}

// Defaults of [proxy].
const (
	DefaultSessionWait   = 10 * time.Second
	DefaultOperationIdle = time.Minute
	DefaultMaxSessions   = 1024
)

// proxy reads a table that need not be there.
func (t *table) proxy() Proxy {
	sub, ok := t.table("proxy")
	if !ok {
		sub = &table{doc: t.doc, name: "proxy", path: keyPath(t.path, "proxy"), line: t.line}
	}
	const mostSessions = 1 << 16
	p := Proxy{
		SessionWait:   sub.duration("session_wait", DefaultSessionWait, 100*time.Millisecond, 5*time.Minute),
		OperationIdle: sub.duration("operation_idle", DefaultOperationIdle, time.Second, time.Hour),
		MaxSessions:   int(sub.count("max_sessions", DefaultMaxSessions, mostSessions)),
	}
	sub.done()
	return p
}
