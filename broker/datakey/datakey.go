// Package datakey keeps the data keys of envelopes, so that most messages cost no
// call to KMS. Three clocks end a key: its age, since KMS gave it out; its idle
// time; and the offline allowance, how much longer it may be used when KMS cannot
// be reached to give out another. However many callers want a key, KMS is asked
// once.
package datakey

import (
	"time"

	"github.com/kmsbroker/kmsbroker/envelope"
)

// Limits of a data key.
type Limits struct {
	Age  time.Duration // since KMS was asked
	Idle time.Duration // since the last use; at most Age
	// Offline is how long after these two a key may be used while KMS cannot be
	// reached; 0 is not at all.
	Offline time.Duration
	// MaxMessages and MaxBytes are what is sealed with one data key; what is opened does
	// not count. A message larger than MaxBytes has one to itself.
	MaxMessages uint64
	MaxBytes    uint64
}

const (
	// partialAge is the age of a data key that could not be wrapped in all regions.
	partialAge = time.Minute
	// askAgain is how soon after a failure KMS is asked again, for a key that may be
	// used offline.
	askAgain = 5 * time.Second
	// patience is how long a caller waits for KMS who has such a key.
	patience = time.Second
	// fetchTime bounds a call to KMS, whoever waits for it.
	fetchTime = 30 * time.Second
	// maxKeys bounds the cache; a data key takes at most 16 KiB, usually one.
	maxKeys = 4096
)

// ID tells data keys apart.
type ID struct {
	Key     string // the broker's name
	Sealing bool
	// What it is sealed or opened with: CMKs, or ciphertext blobs.
	What string
}

// DataKey is a data key as KMS gave it out.
type DataKey struct {
	Plaintext []byte // envelope.KeySize bytes
	Wrapped   []envelope.WrappedKey
	KeyID     string // the CMK that made or opened it
	// RequestID is Alibaba Cloud's, of the call that this caller waited for; empty
	// from the cache.
	RequestID string
	// Partial: it is not wrapped in all regions that it should be.
	Partial bool
}

// Status is how the cache is.
type Status struct {
	Limits
	Keys  int
	Stats Stats
}

// Stats count since the start.
type Stats struct {
	// Uses of data keys that were in the cache, that KMS was asked for, and that
	// were used although KMS could not be asked.
	Cached, Fetched, Offline uint64
	// Questions to KMS that it answered with a data key, and others.
	Answered, Failed uint64
}

// entry is a data key in the cache.
type entry struct {
	DataKey
	sealing  bool
	expires  time.Time // by age
	used     time.Time
	messages uint64
	bytes    uint64
	retry    time.Time // KMS is not asked again before
	wiped    bool
}

// current is whether the key may be used without asking KMS.
func (e *entry) current(now time.Time, l Limits) bool { return now.Before(e.ceases(l)) }

func (e *entry) ceases(l Limits) time.Time {
	if idle := e.used.Add(l.Idle); idle.Before(e.expires) {
		return idle
	}
	return e.expires
}

// offline is whether the key may be used when KMS cannot be reached. Such uses do
// not make it last longer.
func (e *entry) offline(now time.Time, l Limits) bool {
	return now.Before(e.ceases(l).Add(l.Offline))
}

// room is whether the key may be used for another message of that many bytes.
func (e *entry) room(size uint64, l Limits) bool {
	return !e.sealing || e.messages == 0 || e.messages < l.MaxMessages && e.bytes+size >= e.bytes && e.bytes+size <= l.MaxBytes
}

// take counts a message and returns a copy of the key.
func (e *entry) take(size uint64) *DataKey {
	e.messages++
	e.bytes += size
	taken := e.DataKey
	taken.Plaintext = append(make([]byte, 0, len(e.Plaintext)), e.Plaintext...)
	return &taken
}

// cached is take for those who waited for no call to KMS.
func (e *entry) cached(size uint64) *DataKey {
	taken := e.take(size)
	taken.RequestID = ""
	return taken
}

func (e *entry) wipe() {
	clear(e.Plaintext)
	e.wiped = true
}
