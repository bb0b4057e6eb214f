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
	socket doors.SocketConfig
	serve  func(net.Listener) error
	stop   func() // lets calls in flight end for a while, then cuts them off
}

func makeDoors(sockets config.Sockets, units doors.Units, core *broker.Broker, measured *metrics.Metrics, log *slog.Logger) []door {
	controlServer := doors.NewServer(log, measured.Door(control.Door), units)
	v1.RegisterControlServer(controlServer, control.New(core))
	appServer := doors.NewServer(log, measured.Door(app.Door), units)
	v1.RegisterCryptoServer(appServer, app.New(core))
	all := []door{
		grpcDoor(doors.SocketConfig{Path: sockets.Control, Mode: 0o660, GID: sockets.AdminGID}, controlServer),
		grpcDoor(doors.SocketConfig{Path: sockets.Application, Mode: 0o666, GID: -1}, appServer),
	}
	if sockets.Metrics != "" {
		all = append(all, httpDoor(doors.SocketConfig{Path: sockets.Metrics, Mode: 0o660, GID: sockets.AdminGID},
			doors.NewHTTPServer(measured.Handler(log), log)))
	}
	return all
}

func grpcDoor(socket doors.SocketConfig, server *grpc.Server) door {
	return door{socket, server.Serve, func() {
		timer := time.AfterFunc(drainTimeout, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
	}}
}

func httpDoor(socket doors.SocketConfig, server *http.Server) door {
	serve := func(listener net.Listener) error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
	return door{socket, serve, func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // the listener is closed already
		}
	}}
}

// openDoors serves until ctx ends and the calls in flight did too.
func openDoors(ctx context.Context, sockets config.Sockets, units doors.Units, core *broker.Broker, measured *metrics.Metrics, log *slog.Logger) error {
	all := makeDoors(sockets, units, core, measured, log)
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
		serving.Go(func() { failed <- d.open(listener) })
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

func (d door) open(listener *net.UnixListener) error {
	if err := d.serve(doors.LimitPerUID(listener)); err != nil {
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
