package stage

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Daemon is a running kmsbrokerd.
type Daemon struct {
	Log  *Log
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts the daemon and waits until it says that it is ready. It is
// stopped with the test.
func (s *Stage) Start() *Daemon {
	s.t.Helper()
	return s.StartProgram(filepath.Join(Binaries(s.t), "kmsbrokerd"))
}

// StartProgram is Start with another build of the daemon and more in its
// environment.
func (s *Stage) StartProgram(path string, env ...string) *Daemon {
	s.t.Helper()
	d := &Daemon{
		Log:  &Log{changed: make(chan struct{})},
		cmd:  exec.Command(path, "--config", s.Config()),
		done: make(chan struct{}),
	}
	d.cmd.Stderr = d.Log
	d.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	if err := d.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { defer close(d.done); _ = d.cmd.Wait() }()
	s.t.Cleanup(func() {
		d.Stop()
		if s.t.Failed() {
			s.t.Logf("kmsbrokerd:\n%s", d.Log.String())
		}
	})
	if err := d.Wait("kmsbrokerd ready"); err != nil {
		s.t.Fatalf("kmsbrokerd did not get ready: %v\n%s", err, d.Log.String())
	}
	return d
}

// PID is the daemon's process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Wait returns when text is in the daemon's log.
func (d *Daemon) Wait(text string) error { return d.Log.wait(text, d.done) }

// Ended is closed when the process is gone.
func (d *Daemon) Ended() <-chan struct{} { return d.done }

// Stop ends the daemon the ordinary way and waits for it.
func (d *Daemon) Stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done
}

// Goroutines ends the daemon and returns how many goroutines it had, from the
// traces that it writes on SIGQUIT. The runtime's own are not counted: a daemon
// that never collected garbage has no workers for it.
func (d *Daemon) Goroutines() int {
	_ = d.cmd.Process.Signal(syscall.SIGQUIT)
	<-d.done
	traces := d.Log.String()
	return strings.Count(traces, "\ncreated by ") - strings.Count(traces, "\ncreated by runtime.")
}

// Kill ends the daemon at once and waits for it.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
}

// Log collects what a process writes and lets others wait for a text in it.
type Log struct {
	mu      sync.Mutex
	data    bytes.Buffer
	changed chan struct{}
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.data.Write(p)
}

// String returns all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.String()
}

// wait returns when text was written, an error when the writer ended first.
func (l *Log) wait(text string, done <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		l.mu.Lock()
		found, changed := strings.Contains(l.data.String(), text), l.changed
		l.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-changed:
		case <-done:
			return errors.New("it ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
