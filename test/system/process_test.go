package system

import (
	"testing"

	"golang.org/x/sys/unix"
)

// watch takes hold of a process and returns a function that waits for its end.
func watch(t *testing.T, pid int) (wait func()) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		defer unix.Close(fd)
		const patience = 30_000 // milliseconds
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience)
			switch {
			case err == unix.EINTR:
			case err != nil:
				t.Fatal(err)
			case n == 0:
				t.Fatalf("process %d is still alive", pid)
			default:
				return
			}
		}
	}
}
