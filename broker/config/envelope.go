package config

import "time"

// Envelope says how long the data keys of envelopes are kept, and for how much.
type Envelope struct {
	Age         time.Duration // since KMS gave one out
	Idle        time.Duration // since its last use, at most Age
	Offline     time.Duration // beyond these, while KMS cannot be reached
	MaxMessages uint64        // sealed with one
	MaxBytes    uint64        // likewise
}

// Defaults of [envelope].
const (
	DefaultDataKeyAge  = 5 * time.Minute
	DefaultDataKeyIdle = time.Minute
	defaultMaxMessages = 1_000_000
	defaultMaxGiB      = 1024
)

// envelope reads a table that need not be there.
func (t *table) envelope() Envelope {
	sub, ok := t.table("envelope")
	if !ok {
		sub = &table{doc: t.doc, name: "envelope", path: keyPath(t.path, "envelope"), line: t.line}
	}
	const (
		most        = 24 * time.Hour
		mostOffline = 7 * 24 * time.Hour
	)
	e := Envelope{Age: sub.duration("age", DefaultDataKeyAge, time.Second, most)}
	e.Idle = sub.duration("idle", min(DefaultDataKeyIdle, e.Age), time.Second, most)
	if e.Idle > e.Age {
		sub.problem("idle", "%s must not be longer than %s, %v", sub.full("idle"), sub.full("age"), e.Age)
	}
	e.Offline = sub.duration("offline", 0, 0, mostOffline)
	e.MaxMessages = sub.count("max_messages", defaultMaxMessages, 1<<32)
	e.MaxBytes = sub.count("max_gib", defaultMaxGiB, 1<<20) << 30
	sub.done()
	return e
}

// count reads a number from 1.
func (t *table) count(key string, otherwise, most int64) uint64 {
	n, ok := read[int64](t, key, "a number")
	if !ok {
		n = otherwise
	}
	if n < 1 || n > most {
		t.problem(key, "%s must be 1 to %d, not %d", t.full(key), most, n)
	}
	return uint64(n)
}
