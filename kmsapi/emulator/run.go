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

	// Instances are KMS instances with the address of each one's dedicated
	// gateway, see [Server.Gateway], which is served over TLS with
	// InstanceCertFile and InstanceKeyFile (PEM).
	Instances                         []RunInstance
	InstanceCertFile, InstanceKeyFile string

	// The rest is as in [Config].
	StateDir        string
	Regions         []string
	Quota           bool
	MaxKeys         int
	Control         bool
	AccessKeyID     string
	AccessKeySecret string
}

// RunInstance is a KMS instance and the HOST:PORT of its gateway.
type RunInstance struct {
	ID     string
	Listen string
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
// and after that, with MetadataListen and Instances,
//
//	metadata: http://HOST:PORT
//	gateway ID: https://HOST:PORT
//
// The logger must not be nil.
func Run(ctx context.Context, cfg RunConfig, stdout io.Writer, logger *slog.Logger) (err error) {
	if (cfg.MetadataListen == "") != (cfg.MetadataRole == "") {
		return errors.New("emulator: instance metadata needs an address and a role: give both or neither")
	}
	if len(cfg.Instances) > 0 && cfg.InstanceCertFile == "" {
		return errors.New("emulator: the gateway of a KMS instance needs a certificate: it speaks TLS alone")
	}
	server := Config{
		Regions: cfg.Regions, AccessKeyID: cfg.AccessKeyID, AccessKeySecret: cfg.AccessKeySecret,
		StateDir: cfg.StateDir, Quota: cfg.Quota, MaxKeys: cfg.MaxKeys, Control: cfg.Control, Logger: logger,
	}
	for _, i := range cfg.Instances {
		server.Instances = append(server.Instances, i.ID)
	}
	s, err := New(server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	doors, err := doorsOf(cfg, s)
	if err != nil {
		return err
	}
	if err := openAll(ctx, doors, logger); err != nil {
		return err
	}
	// The listeners are open, so whoever calls from now on is answered.
	for _, d := range doors {
		fmt.Fprintf(stdout, "%s: %s\n", d.name, d.url())
	}
	return serveAll(ctx, doors)
}

// doorsOf lists what is to be served, the API first.
func doorsOf(cfg RunConfig, s *Server) ([]*door, error) {
	certificate, err := loadCertificate(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	doors := []*door{{name: "ready", asked: cfg.Listen, handler: s, certificate: certificate}}
	if cfg.MetadataListen != "" {
		doors = append(doors, &door{name: "metadata", asked: cfg.MetadataListen, handler: s.Metadata(cfg.MetadataRole)})
	}
	if certificate, err = loadCertificate(cfg.InstanceCertFile, cfg.InstanceKeyFile); err != nil {
		return nil, err
	}
	for _, i := range cfg.Instances {
		doors = append(doors, &door{name: "gateway " + i.ID, asked: i.Listen, handler: s.Gateway(i.ID), certificate: certificate})
	}
	return doors, nil
}

// loadCertificate returns nil when no files are named.
func loadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	if certFile == "" && keyFile == "" {
		return nil, nil
	}
	if certFile == "" || keyFile == "" {
		return nil, errors.New("emulator: TLS needs a certificate and a key: give both or neither")
	}
	certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("emulator: TLS certificate: %w", err)
	}
	return &certificate, nil
}

// door is an address at which something is served.
type door struct {
	name        string // what its address is printed after
	asked       string // HOST:PORT
	handler     http.Handler
	certificate *tls.Certificate // nil: no TLS

	// Of an open door.
	server   *http.Server
	listener net.Listener
}

// openAll opens all doors or none.
func openAll(ctx context.Context, doors []*door, logger *slog.Logger) error {
	for i, d := range doors {
		if err := d.open(ctx, logger); err != nil {
			for _, opened := range doors[:i] {
				opened.listener.Close()
			}
			return err
		}
	}
	return nil
}

func (d *door) open(ctx context.Context, logger *slog.Logger) (err error) {
	var lc net.ListenConfig
	if d.listener, err = lc.Listen(ctx, "tcp", d.asked); err != nil {
		return fmt.Errorf("emulator: %w", err)
	}
	d.server = &http.Server{
		Handler:        d.handler,
		MaxHeaderBytes: wire.MaxHeader,
		ReadTimeout:    readTimeout,
		IdleTimeout:    idleTimeout,
		ErrorLog:       slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		Protocols:      new(http.Protocols),
	}
	// HTTP/2 has no way to reset a connection for one request alone.
	d.server.Protocols.SetHTTP1(true)
	if d.certificate != nil {
		d.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*d.certificate}, MinVersion: tls.VersionTLS12}
	}
	return nil
}

// url is where the door is, as the one who asked for it would say.
func (d *door) url() string {
	scheme := "http"
	if d.certificate != nil {
		scheme = "https"
	}
	return scheme + "://" + address(d.asked, d.listener)
}

func (d *door) serve() error {
	if d.certificate != nil {
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
