package emulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// RunConfig says what Run serves, and where.
type RunConfig struct {
	Listen string // HOST:PORT; port 0 takes a free one
	// CertFile and KeyFile (PEM) make it TLS; both or neither.
	CertFile string
	KeyFile  string

	// The rest is as in [Config].
	StateDir        string
	Regions         []string
	Quota           bool
	MaxKeys         int
	AccessKeyID     string
	AccessKeySecret string
}

const (
	readTimeout     = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 10 * time.Second
)

// Run serves an emulator until ctx ends, lets requests in flight finish, and
// returns nil. It prints one line to stdout when it can be called:
//
//	ready: http://HOST:PORT
//
// The logger must not be nil.
func Run(ctx context.Context, cfg RunConfig, stdout io.Writer, logger *slog.Logger) (err error) {
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return errors.New("emulator: TLS needs a certificate and a key: give both or neither")
	}
	s, err := New(Config{
		Regions: cfg.Regions, AccessKeyID: cfg.AccessKeyID, AccessKeySecret: cfg.AccessKeySecret,
		StateDir: cfg.StateDir, Quota: cfg.Quota, MaxKeys: cfg.MaxKeys, Logger: logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("emulator: %w", err)
	}
	return serve(ctx, cfg, s, listener, stdout, logger)
}

// serve owns the goroutine that accepts connections.
func serve(ctx context.Context, cfg RunConfig, s *Server, listener net.Listener, stdout io.Writer, logger *slog.Logger) error {
	server := &http.Server{
		Handler:        s,
		MaxHeaderBytes: wire.MaxHeader,
		ReadTimeout:    readTimeout,
		IdleTimeout:    idleTimeout,
		ErrorLog:       slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	scheme := "http"
	accept := func() error { return server.Serve(listener) }
	if cfg.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			listener.Close()
			return fmt.Errorf("emulator: TLS certificate: %w", err)
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		scheme = "https"
		accept = func() error { return server.ServeTLS(listener, "", "") }
	}
	stopped := make(chan error, 1)
	go func() { stopped <- accept() }()
	// The listener is open, so whoever calls from now on is answered.
	fmt.Fprintf(stdout, "ready: %s://%s\n", scheme, address(cfg.Listen, listener))

	select {
	case err := <-stopped:
		return fmt.Errorf("emulator: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		err = errors.Join(fmt.Errorf("emulator: requests were cut off: %w", err), server.Close())
	}
	if stopErr := <-stopped; !errors.Is(stopErr, http.ErrServerClosed) {
		err = errors.Join(err, stopErr)
	}
	return err
}

// address is what was asked for, with the port that it became.
func address(asked string, listener net.Listener) string {
	host, _, err := net.SplitHostPort(asked)
	if err != nil || host == "" {
		host = "localhost"
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return listener.Addr().String()
	}
	return net.JoinHostPort(host, port)
}
