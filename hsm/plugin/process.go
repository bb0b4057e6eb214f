package plugin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/plugin/hsmv1"
	"github.com/kmsbroker/kmsbroker/internal/tracing"
)

// Command says which program to start as a plugin.
type Command struct {
	// Path of the executable, absolute. It and its directory must belong to root
	// or to the user of this process and be writable by nobody else.
	Path string
	// SHA256 is the checksum that the executable must have, 32 bytes.
	SHA256 []byte
	// Env is the complete environment of the plugin, such as
	// "SOFTHSM2_CONF=/etc/softhsm2.conf". Nothing is inherited.
	Env []string
	// SocketDir is an existing directory of mode 0700 that belongs to this user
	// and that no other plugin uses. What an earlier process left there is
	// removed.
	SocketDir string
	// Logger takes the plugin's log lines and those about its process. May be
	// nil.
	Logger *slog.Logger
	// StartTimeout bounds the time until the plugin answers; 0 means ten
	// seconds. The vendor library is loaded later, by Open.
	StartTimeout time.Duration
}

const defaultStartTimeout = 10 * time.Second

// OpenConfig is what a plugin opens its token with.
type OpenConfig struct {
	Settings map[string]string
	// PIN is asked when the plugin is about to log in, at most once.
	PIN hsm.PINSource
}

// Process is a running plugin.
type Process struct {
	child    *child
	goplugin *goplugin.Client
	client   *client
	sessions hsmv1.SessionsClient
	health   grpc_health_v1.HealthClient
	logger   *slog.Logger
	kill     sync.Once
}

// Start checks the executable, starts it and waits until it answers. The process
// outlives ctx; it ends with Kill, Shutdown, or this process. Kill must be called
// in the end, also when the process has ended by itself.
//
// What is wrong with the executable or its first answer is an hsm.Misconfigured.
func Start(ctx context.Context, command Command) (*Process, error) {
	logger := cmp.Or(command.Logger, slog.New(slog.DiscardHandler))
	if err := checkSocketDir(command.SocketDir); err != nil {
		return nil, err
	}
	if err := removeStale(command.SocketDir); err != nil {
		return nil, err
	}
	executable, file, err := openExecutable(command.Path, command.SHA256)
	if err != nil {
		return nil, err
	}
	defer executable.Close() // the process has its own descriptor by then
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(command.StartTimeout, defaultStartTimeout))
	defer cancel()

	p := &Process{logger: logger}
	p.goplugin = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  handshake(),
		Plugins:          goplugin.PluginSet{pluginName: new(grpcPlugin)},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: command.SocketDir},
		// Everything worth knowing is logged here.
		Logger: hclog.NewNullLogger(),
		RunnerFunc: func(_ hclog.Logger, protocol *exec.Cmd, sockets string) (runner.Runner, error) {
			// go-plugin's variables come last and win.
			env := slices.Concat(command.Env, protocol.Env)
			p.child = newChild(ctx, executable, file, env, sockets, logger)
			return p.child, nil
		},
		GRPCDialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage),
		), grpc.WithChainUnaryInterceptor(trace)},
	})
	if err := p.connect(ctx); err != nil {
		p.Kill()
		if e, ok := errors.AsType[*hsm.Error](err); ok {
			return nil, e
		}
		return nil, hsm.Errorf(hsm.Misconfigured, "plugin %s: %v", file, err)
	}
	logger.Info("plugin process started", "pid", p.PID(), "path", file)
	return p, nil
}

// connect starts the process and proves that the gRPC connection stands.
func (p *Process) connect(ctx context.Context) error {
	protocol, err := p.goplugin.Client()
	if err != nil {
		return err
	}
	dispensed, err := protocol.Dispense(pluginName)
	if err != nil {
		return err
	}
	conn := dispensed.(*grpc.ClientConn)
	p.health = grpc_health_v1.NewHealthClient(conn)
	if err := p.ask(ctx); err != nil {
		return p.child.refuse(err)
	}
	p.client = newClient(p.child.alive, hsmv1.NewTokenClient(conn))
	p.sessions = hsmv1.NewSessionsClient(conn)
	return nil
}

// Open tells the plugin to open its token and returns it. It works once in the
// life of a process, because it includes a login: after a failure, start another
// process, and after one whose Reason NeedsOperator, not before something was
// changed.
func (p *Process) Open(ctx context.Context, config OpenConfig) (hsm.Token, error) {
	if err := p.client.open(ctx, config); err != nil {
		return nil, err
	}
	return p.client, nil
}

var _ hsm.TokenInitializer = (*Process)(nil)

// InitToken implements [hsm.TokenInitializer]. It takes the place of Open: the
// process is of no use afterwards.
func (p *Process) InitToken(ctx context.Context, spec hsm.TokenSpec) (serial string, err error) {
	return p.client.initToken(ctx, spec)
}

// Ping proves that the process answers. The vendor's library and the device have
// no part in the answer, so it comes at once whatever they are doing.
func (p *Process) Ping(ctx context.Context) error {
	switch err := p.ask(ctx); {
	case err == nil:
		return nil
	case p.child.alive.Err() != nil:
		return hsm.Errorf(hsm.TokenGone, "the plugin process ended")
	default:
		return hsm.Errorf(hsm.Timeout, "the plugin process does not answer: %v", err)
	}
}

// ask is go-plugin's own Ping with a deadline.
func (p *Process) ask(ctx context.Context) error {
	_, err := p.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: goplugin.GRPCServiceName})
	return err
}

// PID is the process's number.
func (p *Process) PID() int { return p.child.pid() }

// Exited is closed at the moment the process is gone.
func (p *Process) Exited() <-chan struct{} { return p.child.alive.Done() }

// Shutdown closes the token within ctx and ends the process.
func (p *Process) Shutdown(ctx context.Context) {
	if err := p.client.Close(ctx); err != nil {
		p.logger.Warn("plugin did not close its token", "pid", p.PID(), "error", err)
	}
	p.Kill()
}

// killWait is how long Kill waits for the kernel to end the process. A process
// stuck in a device driver may take for ever.
const killWait = 5 * time.Second

// Kill ends the process at once and releases what belongs to it. Calls in
// flight fail with hsm.TokenGone. It may be called more than once.
func (p *Process) Kill() {
	p.kill.Do(func() {
		if p.child == nil {
			return // the process was never prepared
		}
		// go-plugin's Kill asks first and waits for ever on a stopped process, so
		// the signal goes first.
		if err := p.child.Kill(context.Background()); err != nil {
			p.logger.Error("plugin process cannot be killed", "pid", p.PID(), "error", err)
		}
		released := make(chan struct{})
		go func() {
			defer close(released)
			p.goplugin.Kill()
			p.child.supervisor.Wait()
		}()
		select {
		case <-released:
		case <-time.After(killWait):
			p.logger.Error("plugin process does not end after SIGKILL and is left behind", "pid", p.PID())
		}
	})
}

// trace marks a call of a plugin in the trace of what it is made for.
func trace(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	ctx, end := tracing.Start(ctx, "plugin "+path.Base(method))
	err := invoke(ctx, method, req, reply, cc, options...)
	end(err)
	return err
}
