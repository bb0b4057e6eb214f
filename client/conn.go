package client

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Conn is a connection to one of the daemon's gRPC sockets. Most programs want
// [New]; Dial is for those that speak kmsbroker.v1 themselves.
type Conn struct {
	*grpc.ClientConn
	path     string
	dialFail atomic.Pointer[error] // why the last attempt to connect failed
	answered atomic.Bool           // somebody was there once
}

// Dial returns a connection to the socket at path. It connects at the first
// call.
func Dial(path string) (*Conn, error) {
	c := &Conn{path: path}
	conn, err := grpc.NewClient("passthrough:///kmsbroker",
		grpc.WithContextDialer(c.dial),
		// A daemon on the same machine is not spared by waiting for it longer.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: askAgain, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}, //nolint:mnd // gRPC's own
			// Nothing on a Unix socket takes longer than the daemon's start.
			MinConnectTimeout: restartTime,
		}),
		// The kernel vouches for both ends of a Unix socket.
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	c.ClientConn = conn
	return c, nil
}

func (c *Conn) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.path)
	if err != nil {
		c.dialFail.Store(&err)
		return nil, err
	}
	c.dialFail.Store(nil)
	return conn, nil
}

// Error turns the error of a gRPC call on this connection into an [*Error], and
// leaves other errors alone.
func (c *Conn) Error(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	e := &Error{Code: s.Code(), Message: s.Message(), Err: err}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			e.Reason, e.Hint, e.RequestID = info.GetReason(), info.GetMetadata()["hint"], info.GetMetadata()["request_id"]
			return e
		}
	}
	switch e.Code {
	case codes.Unavailable:
	case codes.Unimplemented:
		e.Hint = "is " + c.path + " the right socket? Administration has one of its own, admin/control.sock"
		return e
	case codes.Canceled:
		e.Reason, e.Message = ReasonCanceled, "interrupted"
		return e
	case codes.DeadlineExceeded:
		e.Reason, e.Message, e.Hint = ReasonDeadline, "the deadline passed before kmsbrokerd answered", "give the call more time, or make fewer at once"
		return e
	case codes.ResourceExhausted:
		e.Reason, e.Hint = ReasonMessageSize, "a request has at most 256 KiB"
		return e
	default:
		return e
	}
	// Nobody answered: say why in the kernel's words, not gRPC's.
	e.Reason, e.Message, e.Hint = ReasonUnreachable, "kmsbrokerd does not answer on "+c.path, "is it running? `systemctl status kmsbrokerd`"
	cause := c.dialFail.Load()
	switch {
	case cause == nil && c.GetState() != connectivity.Ready:
		e.Message = "kmsbrokerd closed the connection to " + c.path
		e.Hint = "was it restarted? It also closes what a user opens beyond 256 connections"
	case cause != nil:
		e.Err = *cause
		e.Message = "cannot reach kmsbrokerd: " + rootCause(*cause) + ": " + c.path
		if errors.Is(*cause, os.ErrPermission) {
			e.Hint = "the control socket is for root, the daemon's user and its admin_group"
		}
	}
	return e
}

func rootCause(err error) string {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}
