package serve

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net/http"
	"runtime/debug"
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
		defer survive(config.Log)
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
		ErrorLog:       log.New(complaints{config.Log}, "", 0),
	}
	s.Protocols.SetHTTP1(true)
	return s
}

// survive ends one connection after a panic. The panic's value may hold anything and
// is not logged.
func survive(log *slog.Logger) {
	if r := recover(); r != nil {
		log.Error("panic in a request", "stack", string(debug.Stack()))
		panic(http.ErrAbortHandler)
	}
}

// complaints are what net/http has to say.
type complaints struct{ log *slog.Logger }

// Write implements io.Writer.
func (c complaints) Write(line []byte) (int, error) {
	level := slog.LevelWarn
	if bytes.Contains(line, []byte("TLS handshake error")) {
		level = slog.LevelDebug // who can connect could fill the log with these
	}
	c.log.Log(context.Background(), level, string(bytes.TrimSpace(line)))
	return len(line), nil
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
