package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/config"
	doors "github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/broker/serve/app"
	"github.com/kmsbroker/kmsbroker/broker/serve/control"
)

// drainTimeout is how long calls in flight may take when the daemon stops.
const drainTimeout = 10 * time.Second

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
		serving.Go(func() { failed <- serveDoor(d.server, doors.LimitPerUID(listener), d.config.Path) })
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
