package serve

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// failureInterval is how often failures of one kind are logged at the most. While
// KMS is away there may be thousands a second.
const failureInterval = time.Second

// failureLog tells the operator what failed for reasons that the caller cannot
// help, and did not cause by leaving. Refusals are in the audit trail.
type failureLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[failureKind]*lastFailure
}

// failureKind is of few values, whatever callers do.
type failureKind struct{ method, reason string }

type lastFailure struct {
	at      time.Time
	skipped int // since then
}

func newFailureLog(log *slog.Logger) *failureLog {
	return &failureLog{log: log, last: map[failureKind]*lastFailure{}}
}

// add logs a call's failure, unless one like it was logged just now.
func (l *failureLog) add(ctx context.Context, caller authz.Caller, method string, err error) {
	f := failure.From(err)
	switch {
	case err == nil, f.Reason == authz.ReasonRate, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return
	case f.Kind == failure.Unavailable, f.Kind == failure.Internal, f.Kind == failure.Corrupt, f.Kind == failure.Throttled:
	default:
		return
	}
	skipped, due := l.due(failureKind{method, f.Reason}, time.Now())
	if !due {
		return
	}
	l.log.Warn("call failed", "method", method, "kind", f.Kind.String(), "reason", f.Reason,
		"error", f.Message, "request_id", f.RequestID, "caller", caller, "not_logged_before", skipped)
}

func (l *failureLog) due(kind failureKind, now time.Time) (skipped int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := l.last[kind]
	if ok && now.Sub(last.at) < failureInterval {
		last.skipped++
		return 0, false
	}
	if ok {
		skipped = last.skipped
	}
	l.last[kind] = &lastFailure{at: now}
	return skipped, true
}
