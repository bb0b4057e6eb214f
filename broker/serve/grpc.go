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

// maxMessage bounds a request in bytes: the largest plaintext and context that
// KMS takes fit several times over.
const maxMessage = 64 << 10

// NewServer returns a gRPC server for a Unix socket whose handlers find their
// caller with [CallerOf] and return errors of the core.
func NewServer(log *slog.Logger) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(PeerCredentials()),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(256),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
			defer recovered(log, info.FullMethod, &err)
			answer, err = next(ctx, req)
			return answer, Status(err)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
			defer recovered(log, info.FullMethod, &err)
			return Status(next(srv, stream))
		}),
	)
}

// recovered turns a panic into an error of that one call. The panic's value
// may hold anything and is not logged.
func recovered(log *slog.Logger, method string, err *error) {
	if r := recover(); r != nil {
		log.Error("panic in a call", "method", method, "stack", string(debug.Stack()))
		*err = Status(failure.New(failure.Internal, "PANIC", "an internal error ended the call; the log of kmsbrokerd has the details"))
	}
}
