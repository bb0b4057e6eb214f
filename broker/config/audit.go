package config

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Audit says how the audit trail is written.
type Audit struct {
	// BeforeAnswer: an application's call waits until its record is on the disk.
	BeforeAnswer bool
	// Unrecorded: applications are answered while the trail cannot be written.
	Unrecorded  bool
	CommitDelay time.Duration // how long an application's record may wait for others
	SegmentSize int64         // bytes
	SegmentAge  time.Duration
	Reserve     int64 // bytes of disk for administrative records alone
}

// Defaults of [audit].
const (
	DefaultCommitDelay = 100 * time.Millisecond
	DefaultSegmentAge  = 24 * time.Hour
	defaultSegmentMiB  = 64
	defaultReserveMiB  = 16
)

// audit reads a table that need not be there.
func (t *table) audit() Audit {
	sub, ok := t.table("audit")
	if !ok {
		sub = &table{doc: t.doc, name: "audit", path: keyPath(t.path, "audit"), line: t.line}
	}
	a := Audit{
		BeforeAnswer: sub.choice("application", map[string]bool{"grouped": false, "before-answer": true}, "grouped"),
		Unrecorded:   sub.choice("when_unwritable", map[string]bool{"refuse": false, "answer": true}, "refuse"),
		CommitDelay:  sub.duration("commit_delay", DefaultCommitDelay, time.Millisecond, 10*time.Second),
		SegmentSize:  sub.mebibytes("segment_mib", defaultSegmentMiB, 1, 1024),
		SegmentAge:   sub.duration("segment_age", DefaultSegmentAge, time.Minute, 366*24*time.Hour),
		Reserve:      sub.mebibytes("reserve_mib", defaultReserveMiB, 1, 1024),
	}
	sub.done()
	return a
}

// choice reads one of two words.
func (t *table) choice(key string, words map[string]bool, otherwise string) bool {
	word := t.text(key, otherwise)
	value, ok := words[word]
	if !ok {
		names := slices.Sorted(maps.Keys(words))
		t.problem(key, "%s must be one of %s, not %q%s", t.full(key), strings.Join(names, ", "), word, didYouMean(word, names))
	}
	return value
}

func (t *table) mebibytes(key string, otherwise, least, most int64) int64 {
	n, ok := read[int64](t, key, "a number of MiB")
	if !ok {
		n = otherwise
	}
	if n < least || n > most {
		t.problem(key, "%s must be %d to %d MiB, not %d", t.full(key), least, most, n)
	}
	return n << 20
}
