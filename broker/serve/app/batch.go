package app

import (
	"context"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

const (
	// maxItems of a batch. With the frame's limit it bounds what a batch can hold.
	maxItems = 128
	// atOnce is how many items of a batch are under way at once.
	atOnce = 16
)

// batch does every item and returns their results in the order of the items, each
// made by done or failed. It fails itself only when it is no batch.
func batch[Req, Resp, Item any](ctx context.Context, s *Server, name string, items []Req, do operation[Req, Resp],
	done func(Resp) Item, failed func(*v1.Failure) Item,
) ([]Item, error) {
	from, err := call(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(items); n == 0 || n > maxItems {
		return nil, failure.New(failure.Invalid, "BATCH_SIZE", "a batch has 1 to %d items, not %d", maxItems, n)
	}
	results := make([]Item, len(items))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(atOnce, len(items)) {
		workers.Go(func() {
			for i := range next {
				var answer Resp
				err := s.items.Serve(ctx, name, func(ctx context.Context) (err error) {
					answer, err = do(ctx, from, items[i])
					return err
				})
				if err != nil {
					results[i] = failed(failureOf(err))
				} else {
					results[i] = done(answer)
				}
			}
		})
	}
	for i := range items {
		if ctx.Err() != nil {
			break // nobody waits for the results
		}
		next <- i
	}
	close(next)
	workers.Wait()
	return results, ctx.Err()
}

// failureOf says of an item what the status of a call does.
func failureOf(err error) *v1.Failure {
	s := status.Convert(err)
	f := &v1.Failure{Code: int32(s.Code()), Message: s.Message()}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			f.Reason, f.Hint, f.RequestId = info.GetReason(), info.GetMetadata()["hint"], info.GetMetadata()["request_id"]
		}
	}
	return f
}
