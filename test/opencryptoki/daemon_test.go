//go:build root

// Package opencryptoki runs the engine and the whole broker on opencryptoki's
// software token. Nothing in kmsbroker was written for it; it does SHA-256 OAEP,
// which Debian's SoftHSM does not, and it locks its user after three wrong PINs,
// which SoftHSM never does.
//
// opencryptoki keeps one token for the whole machine and needs root, or the group
// pkcs11, and its daemon: hence the build tag root and `make test-system`.
package opencryptoki

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

const (
	daemonPID = "/run/pkcsslotd.pid"
	// sharedMemory is what each process that opens a token maps, and nobody
	// removes.
	sharedMemory = "/dev/shm/var.lib.opencryptoki.*"
)

func TestMain(m *testing.M) {
	if job := os.Getenv(toolVariable); job != "" {
		if err := tool(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("these tests need root: run make test-system")
	}
	// The parent whose death ends the daemon is a thread.
	runtime.LockOSThread()
	stop, err := startDaemon()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, clearToken(), stop()) }()
	return m.Run(), nil
}

// startDaemon starts pkcsslotd and returns how to stop it. One that runs already
// is used and left alone.
func startDaemon() (stop func() error, err error) {
	if daemonAnswers() {
		return func() error { return nil }, nil
	}
	cmd := exec.Command("pkcsslotd", "-f")
	// SIGTERM would not do: the daemon ignores it as long as a process that used it
	// is there, even if that is dying. The next one reclaims what this one leaves.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: the Debian package opencryptoki is missing", err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-done:
			return removeLeftovers()
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-done
			return errors.New("pkcsslotd did not end: a process still uses the token")
		}
	}
	deadline := time.After(30 * time.Second)
	for !daemonAnswers() {
		select {
		case <-done:
			return nil, fmt.Errorf("pkcsslotd ended: %s", cmd.ProcessState)
		case <-deadline:
			return nil, errors.Join(errors.New("pkcsslotd does not answer"), stop())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return stop, nil
}

// daemonAnswers asks as an ordinary client. The daemon does not survive a
// connection that is closed before it has written to it.
func daemonAnswers() bool { return exec.Command("pkcsconf", "-i").Run() == nil }

// removeLeftovers removes what pkcsslotd and the processes that used it leave.
func removeLeftovers() error {
	segments, err := filepath.Glob(sharedMemory)
	for _, path := range append(segments, daemonPID) {
		if removed := os.Remove(path); !errors.Is(removed, os.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}
	return err
}
