package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/plugin/hsmv1"
	"github.com/kmsbroker/kmsbroker/internal/protect"
)

// OpenRequest is what a plugin gets to open its token with.
type OpenRequest struct {
	// Settings of the backend, as the administrator wrote them. Read them with
	// ReadSettings, which refuses what the plugin does not know.
	Settings map[string]string
	// PIN asks the daemon for the PIN of the role on the token that was found. Ask
	// when everything else is ready and log in with the answer: the daemon counts
	// it as an attempt on that token. Wipe the answer.
	PIN hsm.PINSource
	// Logger writes to the daemon's log.
	Logger *slog.Logger
}

// Opener opens the token of a backend. It is called at most once in the life of
// a process, after the handshake, so it is the place to load a vendor library,
// which may print to standard output. Its error is an [*hsm.Error].
type Opener func(ctx context.Context, req OpenRequest) (hsm.Token, error)

// Option adds what only some plugins can do.
type Option func(*server)

// WithTokenInitializer lets the daemon make tokens. The initializer is called at
// most once in the life of a process, and instead of the Opener.
func WithTokenInitializer(initializer hsm.TokenInitializer) Option {
	return func(s *server) { s.initializer = initializer }
}

// Serve is the main of a plugin. It returns when the daemon is done with the
// process; SIGTERM, which the kernel sends also when the daemon dies, makes it
// close the token and end the process within two seconds.
//
// Serve makes the process undumpable: no core file, no ptrace and no reading of
// its memory by other processes of the same user. It also makes the files in
// its /proc directory, environ among them, readable by root alone.
func Serve(opener Opener, options ...Option) {
	// Captured now: go-plugin replaces os.Stderr with a stream of its own.
	stderr := os.Stderr
	logger := slog.New(newLogHandler(stderr))
	if err := protect.Process(maxFiles); err != nil {
		fmt.Fprintln(stderr, err)
		os.Exit(1)
	}
	s := &server{opener: opener, logger: logger}
	for _, option := range options {
		option(s)
	}

	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, unix.SIGTERM)
	go func() {
		<-terminate
		s.exit()
	}()

	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: handshake(),
		Plugins:         goplugin.PluginSet{pluginName: &grpcPlugin{server: s}},
		GRPCServer:      s.newGRPCServer,
		Logger:          hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: stderr, JSONFormat: true}),
	})
	s.exit()
}

// exit closes the token and ends the process. A library that hangs in its
// logout does not keep it.
func (s *server) exit() {
	time.AfterFunc(closeTime, func() { os.Exit(1) })
	ctx, cancel := context.WithTimeout(context.Background(), closeTime*3/4)
	defer cancel()
	if err := s.close(ctx); err != nil {
		s.logger.Error("token did not close before the process ended", "error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// grpcPlugin is the services of hsm.proto in the form that go-plugin wants. In
// the daemon, server is nil.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	server *server
}

var _ goplugin.GRPCPlugin = (*grpcPlugin)(nil)

// GRPCServer implements [goplugin.GRPCPlugin].
func (p *grpcPlugin) GRPCServer(_ *goplugin.GRPCBroker, registrar *grpc.Server) error {
	if p.server == nil {
		return errors.New("this side does not serve")
	}
	hsmv1.RegisterTokenServer(registrar, p.server)
	hsmv1.RegisterSessionsServer(registrar, &sessionServer{server: p.server})
	return nil
}

// GRPCClient implements [goplugin.GRPCPlugin].
func (p *grpcPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}
