package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
)

const (
	// restartTime is how long a daemon that answered before may be away.
	restartTime = 10 * time.Second
	// askAgain is how soon it is asked whether it is back.
	askAgain = 50 * time.Millisecond
)

// method is a call of the generated client.
type method[Req, Resp any] func(context.Context, Req, ...grpc.CallOption) (Resp, error)

// call makes a call, and makes it again while a daemon that answered before does
// not answer. Its error is an [*Error].
func call[Req, Resp any](ctx context.Context, c *Client, do method[Req, Resp], req Req) (Resp, error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	var lost time.Time // since when nobody answers
	var why error      // nobody does
	for {
		answer, err := do(ctx, req)
		if err == nil {
			c.conn.answered.Store(true)
			return answer, nil
		}
		err = c.conn.Error(err)
		e, ok := errors.AsType[*Error](err)
		if ok && e.Reason == ReasonDeadline && why != nil {
			return answer, why // tells more than that the time is over
		}
		if ok && e.Reason != ReasonUnreachable {
			c.conn.answered.Store(true)
			return answer, err
		}
		if why = err; lost.IsZero() {
			lost = time.Now()
		}
		if !c.conn.answered.Load() || time.Since(lost) > restartTime {
			return answer, err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return answer, err
		}
	}
}
