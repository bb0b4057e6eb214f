package serve

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// HTTPConfig describes an HTTP server.
type HTTPConfig struct {
	Handler   http.Handler
	Log       *slog.Logger
	MaxHeader int // bytes, with the request's line
	// AnswerTime is how long it may take from the end of a request's header to the end
	// of its answer.
	AnswerTime time.Duration
}

// HTTPServer is an HTTP server on which nobody can occupy a connection by being
// slow. A client that asks every minute keeps its connection.
type HTTPServer struct {
	http.Server
	running sync.RWMutex // held by handlers for reading
}

// requestTime is how long a request may take from its first byte to its last.
const requestTime = 10 * time.Second

// NewHTTPServer returns a server, which speaks HTTP/1.1: a connection has one call
// at a time.
func NewHTTPServer(config HTTPConfig) *HTTPServer {
	s := &HTTPServer{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.RLock()
		defer s.running.RUnlock()
		config.Handler.ServeHTTP(w, r)
	})
	s.Server = http.Server{
		Handler:        handler,
		ReadTimeout:    requestTime,
		WriteTimeout:   config.AnswerTime,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: config.MaxHeader,
		ConnContext:    withConn,
		Protocols:      &http.Protocols{},
		// Who can connect can fill a log with handshakes that fail.
		ErrorLog: slog.NewLogLogger(config.Log.Handler(), slog.LevelDebug),
	}
	s.Protocols.SetHTTP1(true)
	return s
}

// Stop lets calls in flight end for a while and then cuts them off. No handler runs
// afterwards.
func (s *HTTPServer) Stop(drain time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if s.Shutdown(ctx) == nil {
		return
	}
	_ = s.Close() // the listener is closed already
	s.running.Lock()
	s.running.Unlock() //nolint:staticcheck // what began has ended now
}
