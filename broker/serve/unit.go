package serve

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/internal/cgroup"
)

// Units finds the systemd units of callers.
type Units struct {
	// WithoutPIDFD: where the kernel has no SO_PEERPIDFD (Linux before 6.5), look a
	// caller up by its PID alone. A process that ended can leave its PID, and the
	// connection, to others.
	WithoutPIDFD bool
}

// Unknown says why the unit of no caller can be found on this kernel; "" if they
// can.
func (u Units) Unknown() string {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	for _, fd := range pair {
		defer os.NewFile(uintptr(fd), "probe").Close()
	}
	process := peerPIDFD(pair[0])
	defer process.close()
	if errors.Is(process.err, errNoPIDFD) && !u.WithoutPIDFD {
		return process.err.Error()
	}
	return ""
}

var (
	errNoPIDFD = errors.New("this kernel has no SO_PEERPIDFD (Linux 6.5), and unit_without_pidfd is not set")
	errEnded   = errors.New("the process that connected has ended")
)

// pidfd is a descriptor of the process that connected, and of no other that has
// its PID afterwards, or why there is none.
type pidfd struct {
	fd  int
	err error
}

// peerPIDFD asks for SO_PEERPIDFD. Kernels before 6.16 have none for a process
// that was waited for.
func peerPIDFD(fd int) pidfd {
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch {
	case err == nil:
		return pidfd{fd: got}
	case errors.Is(err, unix.ENOPROTOOPT):
		return pidfd{fd: -1, err: errNoPIDFD}
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		return pidfd{fd: -1, err: errEnded}
	default:
		return pidfd{fd: -1, err: fmt.Errorf("SO_PEERPIDFD: %w", err)}
	}
}

func (p pidfd) close() {
	if p.err == nil {
		_ = unix.Close(p.fd)
	}
}

// alive returns nil while the process runs: a pidfd becomes readable when it ends
// (pidfd_open(2)).
func (p pidfd) alive() error {
	if p.err != nil {
		return p.err
	}
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("poll a pidfd: %w", err)
		case n > 0:
			return errEnded
		default:
			return nil
		}
	}
}

// of returns the unit of a process. The order matters: a process that still lives
// after its control group was read had that PID all the time.
func (u Units) of(pid int32, process pidfd) authz.Unit {
	unknown := func(err error) authz.Unit { return authz.Unit{Unknown: true, Why: err.Error()} }
	if pid <= 0 {
		return unknown(errors.New("the process that connected is not in the PID namespace of kmsbrokerd"))
	}
	content, readErr := readCgroup(pid)
	err := process.alive()
	if err == nil || errors.Is(err, errNoPIDFD) && u.WithoutPIDFD {
		err = readErr
	}
	if err != nil {
		return unknown(err)
	}
	name, err := cgroup.SystemUnit(content)
	switch {
	case errors.Is(err, cgroup.ErrNoUnit):
		return authz.Unit{Why: err.Error()}
	case err != nil:
		return unknown(err)
	}
	return authz.Unit{Name: name}
}

// maxCgroup is far more than the kernel writes: a path for each of a dozen
// hierarchies, of at most PATH_MAX bytes.
const maxCgroup = 128 << 10

func readCgroup(pid int32) ([]byte, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxCgroup))
}
