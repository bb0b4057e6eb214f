package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kmsbroker/kmsbroker/broker/authz"
)

// connectTo makes this test binary a process that connects to a socket and
// hands the connection to its parent.
const connectTo = "KMSBROKER_TEST_CONNECT_TO"

func TestMain(m *testing.M) {
	if path := os.Getenv(connectTo); path != "" {
		if err := connectAndHandOver(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// connectAndHandOver passes the connection through descriptor 3 and lives until
// its standard input ends.
func connectAndHandOver(path string) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	file, err := conn.File()
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(file.Fd())), nil, 0); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// stranger is another process that connected to path, and the connection that
// it handed over.
type stranger struct {
	cmd   *exec.Cmd
	stdin io.Closer
	conn  net.Conn
}

func newStranger(t *testing.T, path string) *stranger {
	t.Helper()
	return newStrangerAs(t, path, nil)
}

func newStrangerAs(t *testing.T, path string, as *syscall.Credential) *stranger {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	s := &stranger{cmd: exec.Command(os.Args[0])}
	s.cmd.Env = append(os.Environ(), connectTo+"="+path)
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	s.cmd.ExtraFiles = []*os.File{theirs}
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			s.end(t)
		}
	})
	theirs.Close()
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(ours.Fd()), make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%v, %v", messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "passed")
	defer file.Close()
	if s.conn, err = net.FileConn(file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.conn.Close() })
	return s
}

func (s *stranger) end(t *testing.T) {
	t.Helper()
	s.stdin.Close()
	if err := s.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func listen(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	path := filepath.Join(socketDir(t), "s")
	listener, err := Listen(t.Context(), SocketConfig{Path: path, Mode: 0o600, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener, path
}

// TestPassedDescriptor: the peer of a connection is who connected, whoever holds
// its descriptor, and when that process has ended nobody is in its unit.
func TestPassedDescriptor(t *testing.T) {
	listener, path := listen(t)
	stranger := newStranger(t, path)
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	units := Units{}
	living, err := PeerOf(conn, units)
	if err != nil || int(living.PID) != stranger.cmd.Process.Pid {
		t.Errorf("got %v, %v; process %d connected", living, err, stranger.cmd.Process.Pid)
	}
	if living.Unit.Unknown != (units.Unknown() != "") {
		t.Errorf("its unit is %v", living.Unit)
	}
	stranger.end(t)
	ended, err := PeerOf(conn, units)
	if err != nil || ended.UID != living.UID || ended.PID != living.PID || !slices.Equal(ended.Groups, living.Groups) {
		t.Errorf("after its end: got %v, %v; want %v", ended, err, living)
	}
	if want := (authz.Unit{Unknown: true, Why: errEnded.Error()}); units.Unknown() == "" && ended.Unit != want {
		t.Errorf("after its end: unit %v, want %v", ended.Unit, want)
	}
}

// TestPassedDescriptorOverGRPC: what is established at the handshake is what the
// handlers see.
func TestPassedDescriptorOverGRPC(t *testing.T) {
	listener, path := listen(t)
	var got authz.Caller
	server := NewServer(ServerConfig{Log: slog.New(slog.DiscardHandler), Observe: nobody})
	grpc_health_v1.RegisterHealthServer(server, health{check: func(ctx context.Context) (err error) {
		got, err = CallerOf(ctx)
		return err
	}})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() { server.Stop(); <-done }()
	stranger := newStranger(t, path)
	conn, err := grpc.NewClient("passthrough:stranger", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return stranger.conn, nil }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if int(got.PID) != stranger.cmd.Process.Pid {
		t.Errorf("the caller is %v, but process %d connected", got, stranger.cmd.Process.Pid)
	}
}

// processPIDFD opens a pidfd of another process as the kernel would give it for
// a connection.
func processPIDFD(t *testing.T, pid int) pidfd {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := pidfd{fd: fd}
	t.Cleanup(p.close)
	return p
}

// TestReusedPID: the process that connected has ended and its PID belongs to
// another, here to this test, whose control group must not count.
func TestReusedPID(t *testing.T) {
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	process := processPIDFD(t, child.Process.Pid)
	if unit := (Units{}).of(int32(os.Getpid()), process); unit.Unknown {
		t.Errorf("while it lives: %v", unit)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Before anybody waits for it, it is a zombie that keeps its PID.
	ended := []unix.PollFd{{Fd: int32(process.fd), Events: unix.POLLIN}}
	for ended[0].Revents == 0 {
		if _, err := unix.Poll(ended, -1); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	for _, state := range []string{"zombie", "gone"} {
		for _, units := range []Units{{}, {WithoutPIDFD: true}} {
			if unit := units.of(int32(os.Getpid()), process); !unit.Unknown || unit.Name != "" || unit.Why != errEnded.Error() {
				t.Errorf("%s, %+v: %v", state, units, unit)
			}
		}
		_ = child.Wait() // it was killed
	}
}

func TestKernelWithoutPIDFD(t *testing.T) {
	none := pidfd{fd: -1, err: errNoPIDFD}
	self := int32(os.Getpid())
	if unit := (Units{}).of(self, none); !unit.Unknown || !strings.Contains(unit.Why, "SO_PEERPIDFD") {
		t.Errorf("unit %v", unit)
	}
	if unit := (Units{WithoutPIDFD: true}).of(self, none); unit.Unknown {
		t.Errorf("although it may be looked up without: %v", unit)
	}
	// The permission is for that one reason.
	if unit := (Units{WithoutPIDFD: true}).of(self, pidfd{fd: -1, err: errEnded}); !unit.Unknown {
		t.Errorf("of a process that has ended: %v", unit)
	}
	if why := (Units{WithoutPIDFD: true}).Unknown(); why != "" {
		t.Errorf("units can be looked up, but %s", why)
	}
	if why := (Units{}).Unknown(); why != "" && why != errNoPIDFD.Error() {
		t.Errorf("units are unknown: %s", why)
	}
}

func TestProcessThatCannotBeLookedUp(t *testing.T) {
	living := processPIDFD(t, os.Getpid())
	for _, pid := range []int32{0, -1, 1 << 30} {
		if unit := (Units{}).of(pid, living); !unit.Unknown || unit.Name != "" || unit.Why == "" {
			t.Errorf("PID %d: %v", pid, unit)
		}
	}
}

// TestPeerGroups: root alone may choose the groups of a process; to others the
// groups of this test have to do.
func TestPeerGroups(t *testing.T) {
	listener, path := listen(t)
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var want []uint32
	for _, gid := range groups {
		want = append(want, uint32(gid))
	}
	var as *syscall.Credential
	if os.Geteuid() == 0 {
		want = nil
		for gid := range uint32(3 * manyGroups) { // more than the first buffer holds
			want = append(want, 1000+gid)
		}
		as = &syscall.Credential{Groups: want}
	}
	newStrangerAs(t, path, as)
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	caller, err := PeerOf(conn, Units{})
	if err != nil || !slices.Equal(caller.Groups, want) {
		t.Errorf("groups %v, %v; want %v", caller.Groups, err, want)
	}
}
