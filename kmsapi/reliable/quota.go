package reliable

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// maxPerSecond bounds quotas where a clock in nanoseconds still tells calls
// apart.
const maxPerSecond = 1_000_000

// quota lets so many calls go in each second, evenly spaced but for short bursts
// (the generic cell rate algorithm, ITU-T I.371), and has the others wait in
// line.
type quota struct {
	class     Class
	perSecond int
	interval  time.Duration // between two calls
	// slack is how far calls may run ahead of even spacing: a tenth of a second.
	// Whatever second the service counts in, it sees hardly more than the quota.
	slack time.Duration

	mu    sync.Mutex
	due   time.Time // when the next call would go if all were spaced evenly
	line  line
	timer *time.Timer // for the first in line; nil when nobody waits
}

func newQuota(class Class, perSecond int) *quota {
	interval := time.Second / time.Duration(perSecond)
	return &quota{class: class, perSecond: perSecond, interval: interval, slack: max(time.Second/10-interval, 0)}
}

// wait returns when the call may go. It fails at once, with a *ThrottledError,
// when that would be after the context's deadline.
func (q *quota) wait(ctx context.Context) error {
	caller := callerOf(ctx)
	t, err := q.join(ctx, caller)
	if t == nil {
		return err
	}
	select {
	case <-t.granted:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.line.leave(caller, t) {
		q.due = q.due.Add(-q.interval) // the turn goes to the next
	}
	q.serve()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return q.refusal(0)
	}
	return ctx.Err()
}

// join returns the call's turn to wait for, or nil when it need not or cannot
// wait.
func (q *quota) join(ctx context.Context, caller string) (*turn, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait := time.Until(q.start(q.line.ahead(caller)))
	if q.line.length == 0 && wait <= 0 {
		q.take()
		return nil, nil
	}
	if deadline, ok := ctx.Deadline(); ok && wait >= time.Until(deadline) {
		return nil, q.refusal(wait)
	}
	t := q.line.join(caller)
	q.serve()
	return t, nil
}

// start is when a call may go that has n others before it.
func (q *quota) start(n int) time.Time {
	due := q.due
	if now := time.Now(); due.Before(now) {
		due = now
	}
	return due.Add(time.Duration(n)*q.interval - q.slack)
}

func (q *quota) take() {
	q.due = q.start(1).Add(q.slack)
}

// serve lets those in line go whose time has come, and sets the timer for the
// rest.
func (q *quota) serve() {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	for q.line.length > 0 {
		if wait := time.Until(q.start(0)); wait > 0 {
			q.timer = time.AfterFunc(wait, func() {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.serve()
			})
			return
		}
		q.take()
		q.line.serve()
	}
}

func (q *quota) refusal(wait time.Duration) error {
	return &ThrottledError{Limit: fmt.Sprintf("%d %s a second", q.perSecond, q.class), Wait: wait}
}

// waiting returns the calls in line, and the callers they belong to.
func (q *quota) waiting() (calls, callers int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line.length, len(q.line.queues)
}
