package serve

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// Limits of one connection. The largest plaintext and context that KMS takes fit
// into a message several times over; grpc-go's own limit for headers is 16 MiB
// for each of the streams, which any account could have us keep.
const (
	maxMessage = 64 << 10 // bytes
	maxHeader  = 8 << 10  // bytes
	maxStreams = 64
)

// NewServer returns a gRPC server for a Unix socket whose handlers find their
// caller with [CallerOf] and return errors of the core.
func NewServer(log *slog.Logger) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(PeerCredentials()),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(maxStreams),
		// Stop returns when the handlers have, so that none writes to an audit
		// trail that is closed.
		grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
			defer recovered(log, info.FullMethod, &err)
			answer, err = next(ctx, req)
			logFailure(ctx, log, info.FullMethod, err)
			return answer, Status(err)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
			defer recovered(log, info.FullMethod, &err)
			err = next(srv, stream)
			logFailure(stream.Context(), log, info.FullMethod, err)
			return Status(err)
		}),
	)
}

// logFailure tells the operator what failed for reasons that the caller cannot
// help. Refusals are in the audit trail.
func logFailure(ctx context.Context, log *slog.Logger, method string, err error) {
	switch f := failure.From(err); {
	case err == nil:
	case f.Kind == failure.Unavailable, f.Kind == failure.Internal, f.Kind == failure.Corrupt, f.Kind == failure.Throttled:
		caller, _ := CallerOf(ctx) // nobody is as good as the zero caller here
		log.Warn("call failed", "method", method, "kind", f.Kind.String(), "reason", f.Reason,
			"error", f.Message, "request_id", f.RequestID, "caller", caller)
	}
}

// recovered turns a panic into an error of that one call. The panic's value
// may hold anything and is not logged.
func recovered(log *slog.Logger, method string, err *error) {
	if r := recover(); r != nil {
		log.Error("panic in a call", "method", method, "stack", string(debug.Stack()))
		*err = Status(failure.New(failure.Internal, "PANIC", "an internal error ended the call; the log of kmsbrokerd has the details"))
	}
}
