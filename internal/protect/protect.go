// Package protect keeps what a process holds in memory, PINs, access keys and
// plaintexts, away from other processes of the same user and from core files.
package protect

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Process makes the calling process undumpable: it leaves no core file, cannot
// be traced, and its /proc/PID/mem belongs to root (prctl(2), PR_SET_DUMPABLE).
// The kernel forgets it at execve(2), so every program calls it for itself. Root
// can do all of this nevertheless.
//
// It also bounds the descriptors that the process may have open, for good, to
// maxFiles or to what it was allowed before. Other limits of setrlimit(2) are left
// alone, because a program that holds a vendor's library cannot know them: address
// space and data also count what Go's runtime and C's threads only reserve; the
// number of processes is the user's and counts the threads of every other program
// of his; a library may lock its keys into memory, and writes logs of any size.
// What a service as a whole may use is for its control group to say.
func Process(maxFiles uint64) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	// prlimit(2), because filters of system calls that let programs ask for their limits
	// rarely have setrlimit(2).
	if err := unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	files.Max = min(files.Max, maxFiles)
	files.Cur = files.Max
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &files, nil); err != nil {
		return fmt.Errorf("limit open files: %w", err)
	}
	return nil
}
