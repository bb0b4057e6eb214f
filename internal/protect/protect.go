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
func Process() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
