package plugin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestCrash(t *testing.T) {
	process, token := open(t, "crash")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := token.Health(t.Context()); !errors.Is(err, hsm.TokenGone) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	<-process.Exited()
	wantReason(t, token.Health(t.Context()), hsm.TokenGone)
	process.Kill()
	process.Kill()
}

func TestKillEndsCallsInFlight(t *testing.T) {
	process, token := open(t, "hang")
	called := make(chan error)
	go func() { called <- token.Health(context.Background()) }()
	if err := unix.Kill(process.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantReason(t, <-called, hsm.TokenGone)
	<-process.Exited()
}

func TestStoppedProcess(t *testing.T) {
	process, token := open(t, "good")
	if err := unix.Kill(process.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The signal is sent before the process has stopped.
	if err := unix.Waitid(unix.P_PID, process.PID(), nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	wantReason(t, token.Health(ctx), hsm.Timeout)
	process.Kill() // hangs if go-plugin is asked first
	<-process.Exited()
}

func TestShutdownClosesTheToken(t *testing.T) {
	process := start(t, newCommand(t, "good"))
	closed := filepath.Join(t.TempDir(), "closed")
	if _, err := process.Open(t.Context(), OpenConfig{Settings: map[string]string{"closed": closed}, PIN: hsm.PIN([]byte("1234"))}); err != nil {
		t.Fatal(err)
	}
	process.Shutdown(t.Context())
	<-process.Exited()
	if _, err := os.Stat(closed); err != nil {
		t.Errorf("the token was not closed: %v", err)
	}
}

func TestTerminateClosesTheToken(t *testing.T) {
	process := start(t, newCommand(t, "good"))
	closed := filepath.Join(t.TempDir(), "closed")
	if _, err := process.Open(t.Context(), OpenConfig{Settings: map[string]string{"closed": closed}, PIN: hsm.PIN([]byte("1234"))}); err != nil {
		t.Fatal(err)
	}
	terminate(t, process)
	if _, err := os.Stat(closed); err != nil {
		t.Errorf("the token was not closed: %v", err)
	}
}

func TestTerminateEndsStuckProcess(t *testing.T) {
	process, _ := open(t, "stuck")
	terminate(t, process) // waits for ever if the logout is waited for
}

func terminate(t *testing.T, process *Process) {
	t.Helper()
	if err := unix.Kill(process.PID(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-process.Exited()
}

func TestHostDies(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := socketDir(t)
	cmd := exec.Command(self)
	cmd.Env = []string{modeVariable + "=host", "SOCKET_DIR=" + dir}
	cmd.Stderr = t.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(plugin)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(plugin), Events: unix.POLLIN}}, -1)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "closed")); err != nil {
		t.Errorf("the plugin did not close its token: %v", err)
	}
	// The sockets that were left are removed by the next start.
	left, err := filepath.Glob(filepath.Join(dir, "plugin-dir*"))
	if err != nil || len(left) != 1 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
	command := newCommand(t, "good")
	command.SocketDir = dir
	start(t, command)
	if _, err := os.Stat(left[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stale sockets are still there: %v", err)
	}
}

func TestNothingLeaks(t *testing.T) {
	command := newCommand(t, "good")
	command.Logger = nil
	cycle := func() {
		process, err := Start(t.Context(), command)
		if err != nil {
			t.Fatal(err)
		}
		defer process.Kill()
		token, err := process.Open(t.Context(), OpenConfig{PIN: hsm.PIN([]byte("1234"))})
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Health(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cycle() // what is made once and kept
	before := descriptors(t)
	ignore := goleak.IgnoreCurrent()
	for range 30 {
		cycle()
	}
	goleak.VerifyNone(t, ignore)
	if after := descriptors(t); len(after) > len(before) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
	if left, err := os.ReadDir(command.SocketDir); err != nil || len(left) > 0 {
		t.Errorf("left in the socket directory: %v, %v", left, err)
	}
}

func descriptors(t *testing.T) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			open = append(open, target)
		}
	}
	return open
}

func TestLogs(t *testing.T) {
	var logged lockedBuffer
	command := newCommand(t, "logs")
	command.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	process := start(t, command)
	token, err := process.Open(t.Context(), OpenConfig{PIN: hsm.PIN([]byte("1234"))})
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	process.Kill()
	<-process.child.quiet
	if want := `level=ERROR msg="device complains" origin=plugin error="low battery" slot=3`; !strings.Contains(logged.String(), want) {
		t.Errorf("the log has no %s:\n%s", want, logged.String())
	}
}

func TestPanic(t *testing.T) {
	var logged lockedBuffer
	command := newCommand(t, "panic")
	command.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	process := start(t, command)
	token, err := process.Open(t.Context(), OpenConfig{PIN: hsm.PIN([]byte("1234"))})
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, token.Health(t.Context()), hsm.Internal)
	if _, err := token.Describe(t.Context()); err != nil {
		t.Errorf("the process did not survive: %v", err)
	}
	process.Kill()
	<-process.child.quiet
	if !strings.Contains(logged.String(), "(*fake).Health") || strings.Contains(logged.String(), "the secret of the panic") {
		t.Errorf("logged: %s", logged.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestLimits: a crash in vendor code must not write the PIN to the disk, and its
// descriptors fit into an fd_set.
func TestLimits(t *testing.T) {
	process, _ := open(t, "good")
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", process.PID()))
	if err != nil {
		t.Fatal(err)
	}
	limits := strings.Join(strings.Fields(string(content)), " ")
	for _, want := range []string{"Max core file size 0 0 bytes", "Max open files 1024 1024 files"} {
		if !strings.Contains(limits, want) {
			t.Errorf("no %q in the limits:\n%s", want, content)
		}
	}
}

// TestPing: the process answers while its device does not, also when as many
// calls are in flight as may be.
func TestPing(t *testing.T) {
	process, token := open(t, "hang")
	var wg sync.WaitGroup
	for range maxInFlight + 1 {
		wg.Go(func() {
			if err := token.Health(t.Context()); !errors.Is(err, hsm.TokenGone) && !errors.Is(err, hsm.Busy) {
				t.Errorf("got %v", err)
			}
		})
	}
	awaitCalls(process, maxInFlight)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := process.Ping(ctx); err != nil {
		t.Error(err)
	}
	process.Kill()
	wg.Wait()
	wantReason(t, process.Ping(t.Context()), hsm.TokenGone)
}

// awaitCalls returns when n calls are in flight.
func awaitCalls(process *Process, n int) {
	for len(process.client.inFlight) < n {
		runtime.Gosched()
	}
}
