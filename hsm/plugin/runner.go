package plugin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// child is the process of a plugin. It takes the place of go-plugin's own
// runner, because that one executes a path, passes on the daemon's stdin,
// trusts the shape of log lines and tells nobody when the process ends.
type child struct {
	path    string
	cmd     *exec.Cmd
	logger  *slog.Logger
	sockets string // directory that the socket must be in
	start   context.Context

	handshake string

	// alive ends when the process is reaped.
	alive context.Context
	ended context.CancelFunc
	// quiet is closed when its output was read to the end, too.
	quiet      chan struct{}
	supervisor sync.WaitGroup

	mu   sync.Mutex
	last logLine // of standard error
}

var _ runner.Runner = (*child)(nil)

// executableFD is the descriptor of the plugin's own file in the process: the
// first one after the standard three.
const executableFD = "/proc/self/fd/3"

// newChild prepares the process. start bounds the time until its handshake.
func newChild(start context.Context, executable *os.File, path string, env []string, sockets string, logger *slog.Logger) *child {
	alive, ended := context.WithCancel(context.Background())
	return &child{
		path: path, logger: logger, sockets: sockets, start: start, alive: alive, ended: ended,
		quiet: make(chan struct{}),
		cmd: &exec.Cmd{
			Path: executableFD,
			Args: []string{path},
			Env:  env,
			Dir:  "/",
			// A descriptor that is inherited rather than our own number, which the
			// descriptors that exec shuffles around could overwrite.
			ExtraFiles: []*os.File{executable},
			SysProcAttr: &unix.SysProcAttr{
				// When we die, the plugin must not keep its login. SIGTERM and not
				// SIGKILL, so that it can log out; Serve sees to it that the process
				// ends within two seconds all the same.
				Pdeathsig: unix.SIGTERM,
				// Out of the reach of Ctrl-C on our terminal.
				Setpgid: true,
			},
		},
	}
}

// Start implements [runner.Runner]: it starts the process and waits for a valid
// handshake. The context of go-plugin is not the caller's, so it is not used.
func (c *child) Start(context.Context) error {
	stdout, stdoutEnd, err := os.Pipe()
	if err != nil {
		return hsm.Errorf(hsm.Internal, "start plugin: %v", err)
	}
	stderr, stderrEnd, err := os.Pipe()
	if err != nil {
		stdout.Close()
		stdoutEnd.Close()
		return hsm.Errorf(hsm.Internal, "start plugin: %v", err)
	}
	c.cmd.Stdout, c.cmd.Stderr = stdoutEnd, stderrEnd

	started := make(chan error)
	first := make(chan string, 1)
	c.supervisor.Go(func() { c.supervise(started, stdout, stderr, first) })
	err = <-started
	stdoutEnd.Close()
	stderrEnd.Close()
	if err != nil {
		return hsm.Errorf(hsm.Misconfigured, "start plugin %s: %v", c.path, err)
	}
	return c.awaitHandshake(first)
}

// supervise starts the process, reads its output and reaps it. The parent death
// signal is bound to the thread that forks, so this goroutine keeps its thread
// until the process is gone.
func (c *child) supervise(started chan<- error, stdout, stderr *os.File, first chan<- string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(c.quiet)
	defer stdout.Close()
	defer stderr.Close()

	if err := c.cmd.Start(); err != nil {
		c.ended()
		started <- err
		return
	}
	started <- nil
	var readers sync.WaitGroup
	readers.Go(func() { readStdout(stdout, first) })
	readers.Go(func() { relay(stderr, c.logger.With("origin", "plugin"), c.note) })

	// The error says the same as the state.
	_ = c.cmd.Wait()
	c.ended()
	c.logger.Info("plugin process ended", "pid", c.pid(), "status", c.cmd.ProcessState.String())

	// A grandchild may hold the pipes open for ever.
	const patience = time.Second
	for _, pipe := range []*os.File{stdout, stderr} {
		if err := pipe.SetReadDeadline(time.Now().Add(patience)); err != nil {
			pipe.Close()
		}
	}
	readers.Wait()
}

// readStdout passes on the first line and drops the rest, so that a library
// that prints does not block.
func readStdout(r io.Reader, first chan<- string) {
	lines := bufio.NewReaderSize(r, maxHandshake)
	line, err := lines.ReadSlice('\n')
	if len(line) > 0 || err == nil {
		first <- strings.TrimRight(string(line), "\r\n")
	}
	// An error means that the process is gone.
	_, _ = io.Copy(io.Discard, lines)
}

func (c *child) note(line logLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = line
}

func (c *child) awaitHandshake(first <-chan string) error {
	select {
	case line := <-first:
		return c.accept(line)
	case <-c.quiet:
		select {
		case line := <-first:
			return c.accept(line)
		default:
			return c.endedEarly()
		}
	case <-c.start.Done():
		if errors.Is(c.start.Err(), context.Canceled) {
			return hsm.Errorf(hsm.Timeout, "start plugin %s: %v", c.path, context.Cause(c.start))
		}
		return hsm.Errorf(hsm.Misconfigured, "plugin %s did not answer in time: is it a plugin of kmsbroker?", c.path)
	}
}

func (c *child) accept(line string) error {
	if err := checkHandshake(line, c.sockets); err != nil {
		return c.refuse(err)
	}
	c.handshake = line
	return nil
}

func (c *child) refuse(err error) error {
	return hsm.Errorf(hsm.Misconfigured, "plugin %s: %v", c.path, err)
}

func (c *child) endedEarly() error {
	status := c.cmd.ProcessState
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.message == "" {
		return hsm.Errorf(hsm.Misconfigured, "plugin %s ended at its start (%s) and wrote nothing to standard error", c.path, status)
	}
	return hsm.Errorf(hsm.Misconfigured, "plugin %s ended at its start (%s): %s", c.path, status, c.last)
}

// Stdout implements [runner.Runner] with the handshake alone.
func (c *child) Stdout() io.ReadCloser {
	return io.NopCloser(strings.NewReader(c.handshake + "\n"))
}

// Stderr implements [runner.Runner]; relay has it.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Wait implements [runner.AttachedRunner].
func (c *child) Wait(context.Context) error {
	<-c.quiet
	return nil
}

// Kill implements [runner.AttachedRunner].
func (c *child) Kill(context.Context) error {
	if c.cmd.Process == nil {
		return nil
	}
	if err := c.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// ID implements [runner.AttachedRunner].
func (c *child) ID() string { return strconv.Itoa(c.pid()) }

func (c *child) pid() int {
	if c.cmd.Process == nil {
		return 0
	}
	return c.cmd.Process.Pid
}

// Name implements [runner.Runner].
func (c *child) Name() string { return c.path }

// Diagnose implements [runner.Runner].
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost implements [runner.AddrTranslator].
func (c *child) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin implements [runner.AddrTranslator].
func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
