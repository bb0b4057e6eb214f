//go:build root

// Package machine boots Debian with a real systemd and runs kmsbroker in it as a
// service: its unit with its sandbox, and callers of different users, groups and
// units, which no ordinary process can play.
//
// A machine is a container of systemd-nspawn(1) over a root that is made once
// (root.sh). What it writes is in memory, it has no network but its own loopback
// device, and it boots in about a second, so that each test has its own. It needs
// root, and a kernel that lets it make namespaces; systemd need not run on the host.
package machine

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	bootTimeout = time.Minute
	// stopTimeout is longer than the keeper's own patience.
	stopTimeout = time.Minute
)

//go:embed keeper.sh
var keeperScript string

// Machine is a booted machine.
type Machine struct {
	t       testing.TB
	name    string
	leader  int // the machine's PID 1, as the host numbers it
	console *os.File
	ended   chan struct{} // closed when nothing of the machine is left
	keeper  *exec.Cmd
	asker   io.Closer // the machine stays for as long as this is open
}

// Boot starts a machine and waits until it is up. It is removed with the test, or
// with the process; when the test failed its journal is printed.
func Boot(t testing.TB) *Machine {
	t.Helper()
	m := &Machine{t: t, name: "kmsbroker" + strings.ToLower(rand.Text()[:8]), ended: make(chan struct{})}
	notices, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@" + m.name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notices.Close()
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.stop)
	if err := m.awaitBoot(notices); err != nil {
		t.Fatalf("the machine did not boot: %v", err)
	}
	return m
}

func (m *Machine) start() (err error) {
	root := os.Getenv("KMSBROKER_ROOT")
	if root == "" {
		return errors.New("KMSBROKER_ROOT is not set: run make test-system")
	}
	if m.console, err = unnamedFile(); err != nil {
		return err
	}
	// It is killed without notice in the end: nothing in it is kept.
	m.keeper = exec.Command("bash", "-c", keeperScript, "keeper", m.name, //nolint:gosec // G702: the root is the Makefile's word
		"--directory", root, "--read-only", "--volatile=overlay", "--boot", "--kill-signal=SIGKILL",
		"--machine", m.name, "--register=no", "--private-network",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe", "--notify-ready=yes")
	m.keeper.Env = []string{"PATH=" + searchPath, "NOTIFY_SOCKET=@" + m.name}
	m.keeper.Stdout, m.keeper.Stderr = m.console, os.Stderr
	// A session of its own, so that Ctrl-C does not reach it.
	m.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: syscall.CLONE_NEWNS}
	if m.asker, err = m.keeper.StdinPipe(); err != nil {
		return err
	}
	if err := m.keeper.Start(); err != nil {
		return err
	}
	go func() { defer close(m.ended); _ = m.keeper.Wait() }()
	return nil
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// unnamedFile is one that nobody has to remove.
func unnamedFile() (*os.File, error) {
	f, err := os.CreateTemp("", "console")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// awaitBoot reads what nspawn tells of itself and passes on of systemd, sd_notify(3).
func (m *Machine) awaitBoot(notices *net.UnixConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		select {
		case <-m.ended:
		case <-ctx.Done():
		}
		_ = notices.SetReadDeadline(time.Now()) // ends the read below
	})
	buffer := make([]byte, 4096)
	for {
		n, err := notices.Read(buffer)
		if err != nil {
			return errors.Join(errors.New("it did not say that it is ready"), ctx.Err())
		}
		for line := range strings.Lines(string(buffer[:n])) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch name {
			case "X_NSPAWN_LEADER_PID":
				if m.leader, err = strconv.Atoi(value); err != nil {
					return err
				}
			case "READY":
				return nil
			default:
			}
		}
	}
}

// stop removes the machine and waits until nothing of it is left.
func (m *Machine) stop() {
	m.t.Helper()
	if m.t.Failed() {
		m.t.Logf("journal:\n%s", m.Journal())
		m.t.Logf("console:\n%s", m.readConsole())
	}
	m.asker.Close()
	select {
	case <-m.ended:
	case <-time.After(stopTimeout):
		m.t.Errorf("the machine %s does not end:\n%s", m.name, m.readConsole())
	}
	if left := Leftovers(m.name); left != nil {
		m.t.Errorf("the machine left behind: %v", left)
	}
	m.console.Close()
}

func (m *Machine) readConsole() string {
	content, err := io.ReadAll(io.NewSectionReader(m.console, 0, 1<<20))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// Journal returns what the given units, or all, have logged.
func (m *Machine) Journal(units ...string) string {
	args := []string{"journalctl", "--no-pager", "--quiet", "--output=short-precise"}
	for _, unit := range units {
		args = append(args, "--unit="+unit)
	}
	r, err := m.exec(nil, args...)
	if err != nil {
		return err.Error()
	}
	return r.Stdout + r.Stderr
}

// Leftovers finds the processes, mounts and control groups of a machine that should
// be gone.
func Leftovers(name string) error {
	var left []error
	report := func(format string, args ...any) { left = append(left, fmt.Errorf(format, args...)) }
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return err
	}
	for _, file := range append(groups, "/proc/self/mountinfo") {
		// Processes end while we look.
		if content, err := os.ReadFile(file); err == nil && strings.Contains(string(content), name) {
			report("%s names it:\n%s", file, content)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/%s", "/sys/fs/cgroup/*/%s", "/run/systemd/nspawn/*/%s"} {
		found, err := filepath.Glob(fmt.Sprintf(pattern, name))
		if err != nil {
			return err
		}
		for _, path := range found {
			report("%s is there", path)
		}
	}
	return errors.Join(left...)
}
