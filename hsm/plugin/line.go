package plugin

import (
	"errors"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// line is a connection on which reading and writing are system calls that block. Calls
// of PKCS#11 go to and fro, one at a time, and take the device a few microseconds: on
// Go's poller, which asks before it waits and is asked by a thread of its own, they
// would spend more than that on getting there.
type line struct {
	file    *os.File
	timeout time.Duration // of the socket, 0 for none
}

// makeRoom lets Go run beside so many lines. One that waits for an answer, and a call of
// the device's library likewise, holds one of Go's processors until that is taken away
// from it; with none to spare, most of what eight callers cost would be to hand over
// processors.
func makeRoom(lines int) {
	const most = 64
	if want := min(2*lines, most); runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
}

// newLine takes over a connection.
func newLine(conn net.Conn) (*line, error) {
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(original uintptr) {
		fd, dupErr = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err := errors.Join(err, dupErr); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd) // nothing was written
		return nil, err
	}
	return &line{file: os.NewFile(uintptr(fd), "sessions")}, nil
}

// Read implements [io.Reader].
func (l *line) Read(p []byte) (int, error) {
	n, err := l.file.Read(p)
	return n, timedOut(err)
}

// Write implements [io.Writer].
func (l *line) Write(p []byte) (int, error) {
	n, err := l.file.Write(p)
	return n, timedOut(err)
}

// Close closes the connection. Nobody may be reading or writing.
func (l *line) Close() error { return l.file.Close() }

// SetDeadline bounds each system call that follows, to a second.
func (l *line) SetDeadline(deadline time.Time) error {
	timeout := time.Duration(0)
	if !deadline.IsZero() {
		timeout = max(time.Second, time.Until(deadline).Round(time.Second))
	}
	if timeout == l.timeout {
		return nil
	}
	l.timeout = timeout
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	fd := int(l.file.Fd())
	return errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
}

// SetReadDeadline is for those who never set one.
func (l *line) SetReadDeadline(deadline time.Time) error { return l.SetDeadline(deadline) }

// SetWriteDeadline is for those who never set one.
func (l *line) SetWriteDeadline(deadline time.Time) error { return l.SetDeadline(deadline) }

func timedOut(err error) error {
	if errors.Is(err, unix.EAGAIN) {
		return os.ErrDeadlineExceeded
	}
	return err
}
