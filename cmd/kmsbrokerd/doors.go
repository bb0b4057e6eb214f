package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"go.opentelemetry.io/otel/trace"
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
	"github.com/kmsbroker/kmsbroker/broker/serve/p11kit"
)

// drainTimeout is how long calls in flight may take when the daemon stops.
const drainTimeout = 10 * time.Second

// door is where calls come in and what answers there.
type door struct {
	name   string
	at     string // what messages call the place
	path   string // of its socket, to be removed at the end; "" if there is nothing to remove
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
	passed   passedSockets
	tracer   trace.Tracer // nil: nothing is traced
}

// doors makes what answers until ctx ends.
func (h *house) doors(ctx context.Context) ([]door, error) {
	sockets := h.cfg.Sockets
	controlServer := doors.NewServer(doors.ServerConfig{Log: h.log, Observe: h.measured.Door(control.Door), Units: h.units, Tracer: h.tracer})
	v1.RegisterControlServer(controlServer, control.New(h.core))
	appServer := doors.NewServer(doors.ServerConfig{
		Log: h.log, Observe: h.measured.Door(app.Door), Units: h.units, Tracer: h.tracer,
		Shares: doors.NewShares(ctx, h.room, h.core.Names, v1.Crypto_ServiceDesc.ServiceName, h.measured.Refused(app.Door)).KeepRoomFor(os.Getpid()),
	})
	v1.RegisterCryptoServer(appServer, app.New(h.core, doors.NewCalls(h.log, h.measured.Door(app.Door), h.tracer)))
	grpc_health_v1.RegisterHealthServer(appServer, &doors.Health{
		Services: []string{v1.Crypto_ServiceDesc.ServiceName}, Serving: h.core.Serving,
	})
	reflection.Register(appServer)
	all := []door{
		grpcDoor(h.socketDoor(control.Door, control.Door, doors.SocketConfig{Path: sockets.Control, Mode: 0o660, GID: sockets.AdminGID}), controlServer),
		grpcDoor(h.socketDoor(app.Door, app.Door, doors.SocketConfig{Path: sockets.Application, Mode: 0o666, GID: -1}), appServer),
	}
	if sockets.Metrics != "" {
		all = append(all, h.metricsDoor())
	}
	if sockets.Alibaba != "" {
		all = append(all, h.alibabaSocket(ctx))
	}
	if sockets.PKCS11 != "" {
		all = append(all, h.pkcs11Socket(ctx))
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
		Log: h.log, Observe: h.measured.Door(kmsv2.Door), Units: h.units, Tracer: h.tracer,
		Shares: doors.NewShares(ctx, h.room, h.core.Names, v2.KeyManagementService_ServiceDesc.ServiceName, h.measured.Refused(kmsv2.Door)),
	})
	seeds := h.core.Seeds(broker.Provider{Name: provider.Name, Key: provider.Key, Envelope: provider.Envelope})
	v2.RegisterKeyManagementServiceServer(server, kmsv2.New(seeds))
	socket := doors.SocketConfig{Path: provider.Socket, Mode: 0o666, GID: -1}
	return grpcDoor(h.socketDoor(kmsv2.Door, kmsv2.Door+"-"+provider.Name, socket), server)
}

// pkcs11Socket answers p11-kit-client.so.
func (h *house) pkcs11Socket(ctx context.Context) door {
	server := p11kit.New(ctx, p11kit.Config{
		Core: h.core, Units: h.units, Log: h.log, Observe: h.measured.Door(p11kit.Door),
		Shares: doors.NewShares(ctx, h.room, h.core.Names, p11kit.Door, h.measured.Refused(p11kit.Door)),
	})
	d := h.socketDoor(p11kit.Door, p11kit.Door, doors.SocketConfig{Path: h.cfg.Sockets.PKCS11, Mode: 0o666, GID: -1})
	d.serve = server.Serve
	d.stop = func() { server.Stop(drainTimeout) }
	return d
}

// metricsName names the door of which nothing is audited.
const metricsName = "metrics"

// Limits of a request for metrics.
const (
	metricsHeader = 8 << 10 // bytes
	metricsTime   = 30 * time.Second
)

func (h *house) metricsDoor() door {
	server := doors.NewHTTPServer(doors.HTTPConfig{Handler: h.measured.Handler(h.log), Log: h.log, MaxHeader: metricsHeader, AnswerTime: metricsTime})
	socket := doors.SocketConfig{Path: h.cfg.Sockets.Metrics, Mode: 0o660, GID: h.cfg.Sockets.AdminGID}
	return httpDoor(h.socketDoor(metricsName, metricsName, socket), server)
}

// socketDoor listens on a Unix socket, on which no user can have all connections: on
// the one that systemd has passed by that name, or on one of its own.
func (h *house) socketDoor(name, passedAs string, socket doors.SocketConfig) door {
	d := door{name: name, at: "socket " + socket.Path}
	if h.passed[passedAs] == nil {
		d.path = socket.Path
	}
	d.listen = func(ctx context.Context, refused func(what string)) (net.Listener, error) {
		listener, err := h.passed.take(passedAs, "unix", socket.Path)
		if listener == nil && err == nil {
			listener, err = doors.Listen(ctx, socket)
		}
		if err != nil {
			return nil, err
		}
		return doors.LimitPerUID(listener.(*net.UnixListener), refused), nil //nolint:forcetypeassert // of a Unix socket
	}
	return d
}

func grpcDoor(d door, server *grpc.Server) door {
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
