package serve

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// manyGroups is more than most accounts have. Linux allows 65536 (NGROUPS_MAX).
const manyGroups = 64

// peerGroups returns the supplementary groups that the process had which
// connected. The kernel says how many there are when the buffer is too small.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, manyGroups)
	n, err := getPeerGroups(fd, groups)
	if errors.Is(err, unix.ERANGE) {
		groups = make([]uint32, n)
		n, err = getPeerGroups(fd, groups)
	}
	if err != nil {
		return nil, err
	}
	return groups[:n:n], nil
}

// getPeerGroups fills groups and returns how many there are. Package unix has no
// function for an option of this form.
func getPeerGroups(fd int, groups []uint32) (int, error) {
	const size = unsafe.Sizeof(groups[0])
	length := uint32(len(groups)) * uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&length)), 0) //nolint:gosec // both outlive the call, and length says how long the buffer is
	n := int(length) / int(size)
	if errno != 0 {
		return n, errno
	}
	return n, nil
}
