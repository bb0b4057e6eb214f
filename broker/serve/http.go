package serve

import (
	"log/slog"
	"net/http"
	"time"
)

// NewHTTPServer returns an HTTP server for a Unix socket on which nobody can
// occupy a connection by being slow. A client that asks every minute keeps its
// connection.
func NewHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:        handler,
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   30 * time.Second,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
