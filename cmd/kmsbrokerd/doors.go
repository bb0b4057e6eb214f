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
	v2 "k8s.io/kms/apis/v2"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/broker/metrics"
	doors "github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/broker/serve/app"
	"github.com/kmsbroker/kmsbroker/broker/serve/control"
	"github.com/kmsbroker/kmsbroker/broker/serve/kmsv2"
)

// drainTimeout is how long calls in flight may take when the daemon stops.
const drainTimeout = 10 * time.Second

// door is where calls come in and what answers there.
type door struct {
	name   string
	at     string // what messages call the place
	path   string // of its socket, "" without one
	listen func(ctx context.Context, refused func(what string)) (net.Listener, error)
	serve  func(net.Listener) error
	stop   func() // lets calls in flight end for a while, then cuts them off
}

// house is what doors are made of.
type house struct {
	cfg      *config.Config
	units    doors.Units
	core     *broker.Broker
	measured *metrics.Metrics
	log      *slog.Logger
	room     *doors.Room
}

// doors makes what answers until ctx ends.
func (h *house) doors(ctx context.Context) ([]door, error) {
	sockets := h.cfg.Sockets
	controlServer := doors.NewServer(doors.ServerConfig{Log: h.log, Observe: h.measured.Door(control.Door), Units: h.units})
	v1.RegisterControlServer(controlServer, control.New(h.core))
	appServer := doors.NewServer(doors.ServerConfig{
		Log: h.log, Observe: h.measured.Door(app.Door), Units: h.units,
		Shares: doors.NewShares(ctx, h.room, h.core.Names, v1.Crypto_ServiceDesc.ServiceName, h.measured.Refused(app.Door)),
	})
	v1.RegisterCryptoServer(appServer, app.New(h.core, doors.NewCalls(h.log, h.measured.Door(app.Door))))
	grpc_health_v1.RegisterHealthServer(appServer, &doors.Health{
		Services: []string{v1.Crypto_ServiceDesc.ServiceName}, Serving: h.core.Serving,
	})
	reflection.Register(appServer)
	all := []door{
		grpcDoor(control.Door, doors.SocketConfig{Path: sockets.Control, Mode: 0o660, GID: sockets.AdminGID}, controlServer),
		grpcDoor(app.Door, doors.SocketConfig{Path: sockets.Application, Mode: 0o666, GID: -1}, appServer),
	}
	if sockets.Metrics != "" {
		all = append(all, metricsDoor(sockets, h.measured, h.log))
	}
	if sockets.Alibaba != "" {
		all = append(all, h.alibabaSocket(ctx))
	}
	for _, provider := range h.cfg.Kubernetes {
		all = append(all, h.kubernetesSocket(ctx, provider))
	}
	if h.cfg.Alibaba.Listen != "" {
		signed, err := h.alibabaTCP(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, signed)
	}
	return all, nil
}

// kubernetesSocket answers the kube-apiserver of a cluster.
func (h *house) kubernetesSocket(ctx context.Context, provider config.Kubernetes) door {
	server := doors.NewServer(doors.ServerConfig{
		Log: h.log, Observe: h.measured.Door(kmsv2.Door), Units: h.units,
		Shares: doors.NewShares(ctx, h.room, h.core.Names, v2.KeyManagementService_ServiceDesc.ServiceName, h.measured.Refused(kmsv2.Door)),
	})
	seeds := h.core.Seeds(broker.Provider{Name: provider.Name, Key: provider.Key, Envelope: provider.Envelope})
	v2.RegisterKeyManagementServiceServer(server, kmsv2.New(seeds))
	return grpcDoor(kmsv2.Door, doors.SocketConfig{Path: provider.Socket, Mode: 0o666, GID: -1}, server)
}

// metricsName names the door of which nothing is audited.
const metricsName = "metrics"

// Limits of a request for metrics.
const (
	metricsHeader = 8 << 10 // bytes
	metricsTime   = 30 * time.Second
)

func metricsDoor(sockets config.Sockets, measured *metrics.Metrics, log *slog.Logger) door {
	server := doors.NewHTTPServer(doors.HTTPConfig{Handler: measured.Handler(log), Log: log, MaxHeader: metricsHeader, AnswerTime: metricsTime})
	socket := doors.SocketConfig{Path: sockets.Metrics, Mode: 0o660, GID: sockets.AdminGID}
	return httpDoor(socketDoor(metricsName, socket), server)
}

// onSocket listens on a Unix socket, on which no user can have all connections.
func onSocket(socket doors.SocketConfig) func(context.Context, func(string)) (net.Listener, error) {
	return func(ctx context.Context, refused func(what string)) (net.Listener, error) {
		listener, err := doors.Listen(ctx, socket)
		if err != nil {
			return nil, err
		}
		return doors.LimitPerUID(listener, refused), nil
	}
}

func socketDoor(name string, socket doors.SocketConfig) door {
	return door{name: name, at: "socket " + socket.Path, path: socket.Path, listen: onSocket(socket)}
}

func grpcDoor(name string, socket doors.SocketConfig, server *grpc.Server) door {
	d := socketDoor(name, socket)
	d.serve = server.Serve
	d.stop = func() {
		timer := time.AfterFunc(drainTimeout, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
	}
	return d
}

// httpDoor completes a door that an HTTP server answers.
func httpDoor(d door, server *doors.HTTPServer) door {
	d.serve = func(listener net.Listener) error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
	d.stop = func() { server.Stop(drainTimeout) }
	return d
}

// openDoors serves until ctx ends and the calls in flight did too.
func openDoors(ctx context.Context, h *house) error {
	all, err := h.doors(ctx)
	switch {
	case ctx.Err() != nil:
		return nil // told to stop before it began
	case err != nil:
		return err
	}
	var serving sync.WaitGroup
	failed := make(chan error, len(all))
	defer serving.Wait()
	for _, d := range all {
		listener, err := d.listen(ctx, h.measured.Refused(d.name))
		if err != nil {
			stopAll(all)
			return err
		}
		if d.path != "" {
			defer os.Remove(d.path)
		}
		serving.Go(func() { failed <- d.open(listener) })
	}
	notify(h.log, daemon.SdNotifyReady)
	sockets := h.cfg.Sockets
	h.log.Info("kmsbrokerd ready", "control", sockets.Control, "application", sockets.Application, "metrics", sockets.Metrics,
		"alibaba", sockets.Alibaba, "alibaba_tcp", h.cfg.Alibaba.Listen, "kubernetes", len(h.cfg.Kubernetes))
	select {
	case <-ctx.Done():
		h.log.Info("kmsbrokerd stopping")
	case err = <-failed:
	}
	notify(h.log, daemon.SdNotifyStopping)
	stopAll(all)
	return err
}

func (d door) open(listener net.Listener) error {
	if err := d.serve(listener); err != nil {
		return fmt.Errorf("%s: %w", d.at, err)
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
