package wire

import (
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// maxNonces bounds the nonces remembered for one access key. It is a quarter of
// the requests that KMS itself would serve within the window at its quota of
// 1000 per second, and some 20 MB when full.
const maxNonces = 1 << 18

// nonceTable remembers the nonces of the window per access key.
type nonceTable struct {
	start int64 // Unix seconds; older stamps are refused
	limit int   // nonces per access key

	mu   sync.Mutex
	logs map[string]*nonceLog
}

func newNonceTable(start time.Time) *nonceTable {
	return &nonceTable{start: start.Unix(), limit: maxNonces, logs: map[string]*nonceLog{}}
}

// use records that a nonce was used in a request stamped at stamp. It fails when
// it was used before, or when that can no longer be told.
func (t *nonceTable) use(accessKeyID, nonce string, stamp, now time.Time) error {
	hash, stale := hashNonce(nonce), now.Add(-Window).Unix()
	for {
		log := t.log(accessKeyID, stale)
		if err := log.use(hash, stamp.Unix(), stale, t.limit); !errors.Is(err, errDropped) {
			return err
		}
	}
}

// log returns the log of an access key.
func (t *nonceTable) log(accessKeyID string, stale int64) *nonceLog {
	t.mu.Lock()
	defer t.mu.Unlock()
	log := t.logs[accessKeyID]
	if log == nil {
		t.drop(stale)
		log = &nonceLog{floor: t.start, seen: map[nonceHash]struct{}{}, bySecond: map[int64][]nonceHash{}}
		t.logs[accessKeyID] = log
	}
	return log
}

// errDropped: the log is no longer in the table, and what it would remember would
// be forgotten.
var errDropped = errors.New("the log was dropped")

// drop forgets the access keys that were not used within the window. What their
// logs would still refuse is stale.
func (t *nonceTable) drop(stale int64) {
	for id, log := range t.logs {
		if log.drop(stale) {
			delete(t.logs, id)
		}
	}
}

// nonceHash stands for a nonce of any length.
type nonceHash [16]byte

func hashNonce(nonce string) nonceHash {
	sum := sha256.Sum256([]byte(nonce))
	return nonceHash(sum[:16])
}

// nonceLog remembers the nonces of one access key. When it is full it forgets
// those with the oldest stamps and from then on refuses requests that old: a
// busy client has its window shortened, and nothing is ever served twice.
type nonceLog struct {
	mu       sync.Mutex
	floor    int64 // Unix seconds; older stamps are refused
	swept    int64 // stamps before this were forgotten because they are stale
	seen     map[nonceHash]struct{}
	bySecond map[int64][]nonceHash
	dropped  bool // it is not in the table any more
}

func (l *nonceLog) use(nonce nonceHash, stamp, stale int64, limit int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped {
		return errDropped
	}
	if stale > l.swept {
		l.swept = stale
		for second := range l.bySecond {
			if second < stale {
				l.forget(second)
			}
		}
	}
	if stamp < l.floor {
		return errTimeExpired
	}
	if _, used := l.seen[nonce]; used {
		return errNonceUsed
	}
	l.seen[nonce] = struct{}{}
	l.bySecond[stamp] = append(l.bySecond[stamp], nonce)
	for len(l.seen) > limit {
		oldest := stamp
		for second := range l.bySecond {
			oldest = min(oldest, second)
		}
		l.forget(oldest)
		l.floor = oldest + 1
	}
	return nil
}

// drop ends a log whose nonces are all stale, and reports whether they are.
func (l *nonceLog) drop(stale int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for second := range l.bySecond {
		if second >= stale {
			return false
		}
	}
	l.dropped = true
	return true
}

func (l *nonceLog) forget(second int64) {
	for _, nonce := range l.bySecond[second] {
		delete(l.seen, nonce)
	}
	delete(l.bySecond, second)
}
