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
	// MetadataListen, if not empty, serves ECS instance metadata over HTTP with
	// the credentials of MetadataRole, see [Server.Metadata].
	MetadataListen string
	MetadataRole   string

	// The rest is as in [Config].
	StateDir        string
	Regions         []string
	Quota           bool
	MaxKeys         int
	Control         bool
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
// and after that, with MetadataListen,
//
//	metadata: http://HOST:PORT
//
// The logger must not be nil.
func Run(ctx context.Context, cfg RunConfig, stdout io.Writer, logger *slog.Logger) (err error) {
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return errors.New("emulator: TLS needs a certificate and a key: give both or neither")
	}
	if (cfg.MetadataListen == "") != (cfg.MetadataRole == "") {
		return errors.New("emulator: instance metadata needs an address and a role: give both or neither")
	}
	s, err := New(Config{
		Regions: cfg.Regions, AccessKeyID: cfg.AccessKeyID, AccessKeySecret: cfg.AccessKeySecret,
		StateDir: cfg.StateDir, Quota: cfg.Quota, MaxKeys: cfg.MaxKeys, Control: cfg.Control, Logger: logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	api, err := openDoor(ctx, cfg.Listen, s, logger)
	if err != nil {
		return err
	}
	doors := []*door{api}
	if cfg.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			api.listener.Close()
			return fmt.Errorf("emulator: TLS certificate: %w", err)
		}
		api.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	if cfg.MetadataListen != "" {
		metadata, err := openDoor(ctx, cfg.MetadataListen, s.Metadata(cfg.MetadataRole), logger)
		if err != nil {
			api.listener.Close()
			return err
		}
		doors = append(doors, metadata)
	}
	// The listeners are open, so whoever calls from now on is answered.
	fmt.Fprintf(stdout, "ready: %s\n", api.url(cfg.Listen))
	if len(doors) > 1 {
		fmt.Fprintf(stdout, "metadata: %s\n", doors[1].url(cfg.MetadataListen))
	}
	return serveAll(ctx, doors)
}

// door is an address at which something is served.
type door struct {
	server   *http.Server
	listener net.Listener
}

func openDoor(ctx context.Context, address string, handler http.Handler, logger *slog.Logger) (*door, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	server := &http.Server{
		Handler:        handler,
		MaxHeaderBytes: wire.MaxHeader,
		ReadTimeout:    readTimeout,
		IdleTimeout:    idleTimeout,
		ErrorLog:       slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		Protocols:      new(http.Protocols),
	}
	// HTTP/2 has no way to reset a connection for one request alone.
	server.Protocols.SetHTTP1(true)
	return &door{server, listener}, nil
}

// url is where the door is, as the one who asked for it would say.
func (d *door) url(asked string) string {
	scheme := "http"
	if d.server.TLSConfig != nil {
		scheme = "https"
	}
	return scheme + "://" + address(asked, d.listener)
}

func (d *door) serve() error {
	if d.server.TLSConfig != nil {
		return d.server.ServeTLS(d.listener, "", "")
	}
	return d.server.Serve(d.listener)
}

// serveAll owns the goroutines that accept connections. When one of them fails
// all end.
func serveAll(ctx context.Context, doors []*door) error {
	stopped := make(chan error, len(doors))
	for _, d := range doors {
		go func() { stopped <- d.serve() }()
	}
	var failed error
	left := len(doors)
	select {
	case failed = <-stopped:
		left--
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	for _, d := range doors {
		if err := d.server.Shutdown(grace); err != nil {
			failed = errors.Join(failed, fmt.Errorf("requests were cut off: %w", err), d.server.Close())
		}
	}
	for range left {
		if err := <-stopped; !errors.Is(err, http.ErrServerClosed) {
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return fmt.Errorf("emulator: %w", failed)
	}
	return nil
}

// address is what was asked for, with the port that the listener has.
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
