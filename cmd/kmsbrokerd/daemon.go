package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	doors "github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/broker/serve/app"
	"github.com/kmsbroker/kmsbroker/broker/serve/control"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// drainTimeout is how long calls in flight may take when the daemon stops.
const drainTimeout = 10 * time.Second

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, cfg *config.Config, log *slog.Logger) (err error) {
	pluginSockets := filepath.Join(cfg.RuntimeDir, "plugins")
	if err := makeDirectories(cfg, pluginSockets); err != nil {
		return err
	}
	keys, err := keyring.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	trail, err := audit.Open(filepath.Join(cfg.StateDir, "audit"), time.Now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, trail.Close()) }()
	endpoint, kms, err := openKMS(cfg.KMS)
	if err != nil {
		return err
	}
	defer kms.Close()

	backends := makeBackends(cfg, pluginSockets, trail, log)
	core := broker.New(broker.Config{
		Version: version, Keyring: keys, Audit: trail, Backends: backends,
		Endpoint: endpoint, Policy: authz.NewPolicy(cfg.Grants), Now: time.Now,
	})
	if err := recordStart(ctx, trail, endpoint); err != nil {
		return err
	}
	log.Info("kmsbrokerd starting", "version", version, "region", endpoint.Region, "endpoint", endpoint.URL, "genuine", endpoint.Genuine)

	// The backends outlive the doors, so that calls in flight can end.
	backendCtx, stopBackends := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { backends.Run(backendCtx) })
	err = openDoors(ctx, cfg.Sockets, core, log)
	stopBackends()
	running.Wait()
	stopErr := trail.Append(context.WithoutCancel(ctx), audit.Event{Action: audit.DaemonStop, Outcome: audit.Done})
	return errors.Join(err, stopErr)
}

func recordStart(ctx context.Context, trail *audit.Log, endpoint importer.Endpoint) error {
	details := map[string]string{audit.DetailVersion: version, audit.DetailEndpoint: endpoint.URL}
	if !endpoint.Genuine {
		details[audit.DetailForeign] = "true"
	}
	return trail.Append(ctx, audit.Event{Action: audit.DaemonStart, Outcome: audit.Done, Details: details})
}

// makeDirectories makes what the daemon needs, with the rights it needs: all
// may pass through the runtime directory, administrators alone may enter the
// control socket's.
func makeDirectories(cfg *config.Config, pluginSockets string) error {
	directories := []struct {
		path string
		mode os.FileMode
		gid  int
	}{
		{cfg.StateDir, 0o700, -1},
		{cfg.RuntimeDir, 0o755, -1},
		{pluginSockets, 0o700, -1},
		{filepath.Dir(cfg.Sockets.Control), 0o750, cfg.Sockets.AdminGID},
	}
	for _, d := range directories {
		if filepath.Clean(d.path) == filepath.Clean(cfg.RuntimeDir) && d.mode != 0o755 {
			return fmt.Errorf("the control socket needs a directory of its own, not %s", d.path)
		}
		err := os.Mkdir(d.path, 0o700)
		if errors.Is(err, os.ErrExist) {
			continue // made by systemd, the package or an earlier start, which chose its rights
		}
		if err := errors.Join(err); err != nil {
			return err
		}
		if err := errors.Join(os.Chown(d.path, -1, d.gid), os.Chmod(d.path, d.mode)); err != nil {
			return err
		}
	}
	return nil
}

func openKMS(cfg config.KMS) (importer.Endpoint, *kmsapi.Client, error) {
	none := importer.Endpoint{}
	credentials, err := kmsapi.CredentialsFile(cfg.CredentialsFile)
	if err != nil {
		return none, nil, err
	}
	clientConfig := kmsapi.ClientConfig{Region: cfg.Region, Endpoint: cfg.Endpoint, Credentials: credentials}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return none, nil, err
		}
		clientConfig.RootCAs = x509.NewCertPool()
		if !clientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return none, nil, fmt.Errorf("ca_file %s holds no PEM certificate", cfg.CAFile)
		}
	}
	kms, err := kmsapi.NewClient(clientConfig)
	if err != nil {
		return none, nil, err
	}
	return importer.Endpoint{
		KMS: kms, URL: kms.Endpoint().String(), Region: cfg.Region, Genuine: kms.Genuine(),
		// The shared gateway accepts all three (GetParametersForImport).
		WrappingAlgorithms: hsm.WrappingAlgorithms(),
	}, kms, nil
}

func makeBackends(cfg *config.Config, socketDir string, trail *audit.Log, log *slog.Logger) *backend.Set {
	backends := make([]*backend.Backend, 0, len(cfg.Backends))
	for _, b := range cfg.Backends {
		backends = append(backends, backend.New(backend.Config{
			Name: b.Name, Plugin: b.Plugin, AllowForeignEndpoint: b.AllowForeignEndpoint, Log: log,
			Launch: backend.LaunchPlugin(backend.PluginConfig{
				Dir: cfg.PluginDir, Plugin: b.Plugin, SHA256: b.SHA256, Environment: environment(b),
				SocketDir: socketDir, Settings: b.Settings, PINFile: b.PINFile, Log: log.With("backend", b.Name),
			}),
			Changed: func(s backend.Status) { recordState(trail, s, log) },
		}))
	}
	return backend.NewSet(backends...)
}

// environment is the whole environment of a plugin: nothing of the daemon's
// own leaks into vendor code.
func environment(b config.Backend) []string {
	env := []string{"PATH=/usr/bin:/bin", "TZ=UTC"}
	for name, value := range b.Environment {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

func recordState(trail *audit.Log, s backend.Status, log *slog.Logger) {
	event := audit.Event{
		Action: audit.BackendState, Outcome: audit.Done, Backend: s.Name,
		Details: map[string]string{audit.DetailState: string(s.State)},
	}
	if s.Err != nil {
		event.Outcome, event.Reason = audit.Failed, string(hsm.ReasonOf(s.Err))
	}
	if s.Info != nil {
		event.Details[audit.DetailSerial] = s.Info.Serial
	}
	if err := trail.Append(context.Background(), event); err != nil {
		log.Error("backend state not recorded", "backend", s.Name, "error", err)
	}
}

// openDoors serves until ctx ends and the calls in flight did too.
func openDoors(ctx context.Context, sockets config.Sockets, core *broker.Broker, log *slog.Logger) error {
	controlServer, appServer := doors.NewServer(log), doors.NewServer(log)
	v1.RegisterControlServer(controlServer, control.New(core))
	v1.RegisterCryptoServer(appServer, app.New(core))
	open := []struct {
		config doors.SocketConfig
		server *grpc.Server
	}{
		{doors.SocketConfig{Path: sockets.Control, Mode: 0o660, GID: sockets.AdminGID}, controlServer},
		{doors.SocketConfig{Path: sockets.Application, Mode: 0o666, GID: -1}, appServer},
	}
	var serving sync.WaitGroup
	failed := make(chan error, len(open))
	defer serving.Wait()
	for _, d := range open {
		listener, err := doors.Listen(ctx, d.config)
		if err != nil {
			stopAll(controlServer, appServer)
			return err
		}
		defer os.Remove(d.config.Path)
		serving.Go(func() { failed <- serveDoor(d.server, listener, d.config.Path) })
	}
	notify(log, daemon.SdNotifyReady)
	log.Info("kmsbrokerd ready", "control", sockets.Control, "application", sockets.Application)
	var err error
	select {
	case <-ctx.Done():
		log.Info("kmsbrokerd stopping")
	case err = <-failed:
	}
	notify(log, daemon.SdNotifyStopping)
	stopAll(controlServer, appServer)
	return err
}

func serveDoor(server *grpc.Server, listener net.Listener, path string) error {
	if err := server.Serve(listener); err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	return nil
}

// stopAll lets calls in flight end for a while, then cuts them off.
func stopAll(servers ...*grpc.Server) {
	var stopping sync.WaitGroup
	for _, server := range servers {
		stopping.Go(func() {
			timer := time.AfterFunc(drainTimeout, server.Stop)
			defer timer.Stop()
			server.GracefulStop()
		})
	}
	stopping.Wait()
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not notified", "error", err)
	}
}
