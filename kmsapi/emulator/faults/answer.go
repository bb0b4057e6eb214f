package faults

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// refusals are the kinds that speak the protocol.
var refusals = map[Kind]*wire.Error{
	Throttling: {Status: http.StatusTooManyRequests, Code: "Rejected.Throttling", Message: "QPS Limit Exceeded"},
	FlowControl: {Status: http.StatusBadRequest, Code: "Throttling.User",
		Message: "Request was denied due to user flow control."},
	Internal: wire.ErrInternal,
	Unavailable: {Status: http.StatusServiceUnavailable, Code: "ServiceUnavailableTemporary",
		Message: "Service Unavailable Temporary."},
}

const page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n" +
	"<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"

// Wait passes the delay, or ends early with the request.
func (r Rule) Wait(ctx context.Context) {
	if r.Delay == 0 {
		return
	}
	timer := time.NewTimer(time.Duration(r.Delay))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Replaces reports whether the fault answers in place of the service.
func (r Rule) Replaces() bool { return r.Kind != Latency && r.Kind != Skew }

// Answer answers a request in place of the service. It panics with
// [http.ErrAbortHandler] when that is the only way to end the connection.
func (r Rule) Answer(w http.ResponseWriter, request *wire.Request) error {
	if refusal, ok := refusals[r.Kind]; ok {
		return wire.WriteError(w, request, refusal)
	}
	if r.Kind == HTML {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		if _, err := w.Write([]byte(page)); err != nil {
			return fmt.Errorf("send page: %w", err)
		}
		return nil
	}
	return reset(w)
}

// reset ends the connection with a TCP reset, as a load balancer does whose
// server is gone.
func reset(w http.ResponseWriter) error {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2, or a recorder
	}
	raw := conn
	if secured, ok := conn.(interface{ NetConn() net.Conn }); ok {
		raw = secured.NetConn() // closing TLS would say goodbye first
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			conn.Close()
			return fmt.Errorf("reset connection: %w", err)
		}
	}
	return raw.Close()
}
