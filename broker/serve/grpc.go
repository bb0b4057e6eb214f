package serve

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Limits of one connection. The largest plaintext and context that KMS takes fit
// into a message several times over, and a batch of a hundred small ones; grpc-go's
// own limit for headers is 16 MiB for each of the streams, which any account could
// have us keep.
const (
	maxMessage = 256 << 10 // bytes
	maxHeader  = 8 << 10   // bytes
	maxStreams = 64
	// window is what a stream may send ahead. Said once, it is not adapted to what
	// the network carries, which on a Unix socket is as much as one likes.
	window = 64 << 10 // bytes
	// workers run handlers; more calls than these get goroutines of their own.
	workers = 64
	// buffer is for reading and for writing, while there is something to read or write.
	buffer = 32 << 10 // bytes
)

// ServerConfig describes a gRPC server.
type ServerConfig struct {
	Log     *slog.Logger
	Observe Observe
	Units   Units
	Tracer  trace.Tracer // nil: nothing is traced
	// Shares are for a door that everybody can reach; nil for one that only
	// administrators can.
	Shares *Shares
}

// NewServer returns a gRPC server for a Unix socket whose handlers find their
// caller with [CallerOf] and return errors of the core.
func NewServer(config ServerConfig) *grpc.Server {
	c := NewCalls(config.Log, config.Observe, config.Tracer)
	options := []grpc.ServerOption{
		grpc.Creds(peerCredentials{config.Units, config.Shares}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(4 * window),
		// Handlers that find a stack as deep as the SDK goes need a quarter less
		// processor time.
		grpc.NumStreamWorkers(workers),
		grpc.ReadBufferSize(buffer),
		grpc.WriteBufferSize(buffer),
		// Stop returns when the handlers have, so that none writes to an audit
		// trail that is closed.
		grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
			defer config.Shares.handling(ctx)()
			err = c.Serve(ctx, info.FullMethod, func(ctx context.Context) error {
				answer, err = next(ctx, req)
				return err
			})
			return answer, err
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			defer config.Shares.handling(stream.Context())()
			return c.Serve(stream.Context(), info.FullMethod, func(ctx context.Context) error {
				return next(srv, &tracedStream{stream, ctx})
			})
		}),
	}
	if config.Shares != nil {
		options = append(options, grpc.InTapHandle(config.Shares.begin))
	}
	return grpc.NewServer(options...)
}

// tracedStream is a stream whose handler works within a trace.
type tracedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *tracedStream) Context() context.Context { return s.ctx }
