package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/broker/metrics"
	doors "github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/broker/serve/app"
	"github.com/kmsbroker/kmsbroker/broker/serve/control"
)

// drainTimeout is how long calls in flight may take when the daemon stops.
const drainTimeout = 10 * time.Second

// door is a socket and what answers there.
type door struct {
	name   string
	socket doors.SocketConfig
	serve  func(net.Listener) error
	stop   func() // lets calls in flight end for a while, then cuts them off
}

// makeDoors makes what answers until ctx ends.
func makeDoors(ctx context.Context, sockets config.Sockets, units doors.Units, core *broker.Broker, measured *metrics.Metrics, log *slog.Logger) []door {
	controlServer := doors.NewServer(doors.ServerConfig{Log: log, Observe: measured.Door(control.Door), Units: units})
	v1.RegisterControlServer(controlServer, control.New(core))
	appServer := doors.NewServer(doors.ServerConfig{
		Log: log, Observe: measured.Door(app.Door), Units: units,
		Shares: doors.NewShares(ctx, core.Names, v1.Crypto_ServiceDesc.ServiceName, measured.Refused(app.Door)),
	})
	v1.RegisterCryptoServer(appServer, app.New(core, doors.NewCalls(log, measured.Door(app.Door))))
	grpc_health_v1.RegisterHealthServer(appServer, &doors.Health{
		Services: []string{v1.Crypto_ServiceDesc.ServiceName}, Serving: core.Serving,
	})
	reflection.Register(appServer)
	all := []door{
		grpcDoor(control.Door, doors.SocketConfig{Path: sockets.Control, Mode: 0o660, GID: sockets.AdminGID}, controlServer),
		grpcDoor(app.Door, doors.SocketConfig{Path: sockets.Application, Mode: 0o666, GID: -1}, appServer),
	}
	if sockets.Metrics != "" {
		all = append(all, httpDoor(metricsDoor, doors.SocketConfig{Path: sockets.Metrics, Mode: 0o660, GID: sockets.AdminGID},
			doors.NewHTTPServer(measured.Handler(log), log)))
	}
	return all
}

// metricsDoor names the door of which nothing is audited.
const metricsDoor = "metrics"

func grpcDoor(name string, socket doors.SocketConfig, server *grpc.Server) door {
	return door{name, socket, server.Serve, func() {
		timer := time.AfterFunc(drainTimeout, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
	}}
}

func httpDoor(name string, socket doors.SocketConfig, server *http.Server) door {
	serve := func(listener net.Listener) error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
	return door{name, socket, serve, func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // the listener is closed already
		}
	}}
}

// openDoors serves until ctx ends and the calls in flight did too.
func openDoors(ctx context.Context, sockets config.Sockets, units doors.Units, core *broker.Broker, measured *metrics.Metrics, log *slog.Logger) error {
	all := makeDoors(ctx, sockets, units, core, measured, log)
	var serving sync.WaitGroup
	failed := make(chan error, len(all))
	defer serving.Wait()
	for _, d := range all {
		listener, err := doors.Listen(ctx, d.socket)
		if err != nil {
			stopAll(all)
			return err
		}
		defer os.Remove(d.socket.Path)
		serving.Go(func() { failed <- d.open(listener, measured.Refused(d.name)) })
	}
	notify(log, daemon.SdNotifyReady)
	log.Info("kmsbrokerd ready", "control", sockets.Control, "application", sockets.Application, "metrics", sockets.Metrics)
	var err error
	select {
	case <-ctx.Done():
		log.Info("kmsbrokerd stopping")
	case err = <-failed:
	}
	notify(log, daemon.SdNotifyStopping)
	stopAll(all)
	return err
}

func (d door) open(listener *net.UnixListener, refused func(what string)) error {
	if err := d.serve(doors.LimitPerUID(listener, refused)); err != nil {
		return fmt.Errorf("socket %s: %w", d.socket.Path, err)
	}
	return nil
}

func stopAll(all []door) {
	var stopping sync.WaitGroup
	for _, d := range all {
		stopping.Go(d.stop)
	}
	stopping.Wait()
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not notified", "error", err)
	}
}
