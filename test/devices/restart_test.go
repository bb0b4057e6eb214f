package devices

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// supervised is a backend with a real plugin, and the news of it.
type supervised struct {
	*backend.Backend
	device *device
	news   chan backend.Status
	stop   func()
}

func supervise(t *testing.T, d *device, callTimeout time.Duration) *supervised {
	t.Helper()
	s := &supervised{device: d, news: make(chan backend.Status, 64)}
	s.Backend = backend.New(backend.Config{
		Name: "hsm", Launch: s.device.launch, Logins: s.device.logins, CallTimeout: callTimeout,
		Log: slog.New(slog.DiscardHandler), Changed: func(status backend.Status) { s.news <- status },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(s.stop)
	return s
}

// ready waits for another process than that with the number old.
func (s *supervised) ready(t *testing.T, old int) (pid int) {
	t.Helper()
	const patience = 30 * time.Second
	timeout := time.After(patience)
	for {
		select {
		case status := <-s.news:
			if status.State == backend.Ready && status.PID != old {
				return status.PID
			}
		case <-timeout:
			t.Errorf("no process after %d within %v: %+v", old, patience, s.Status())
			return old
		}
	}
}

// await waits for the news of one of these states.
func (s *supervised) await(t *testing.T, states ...backend.State) backend.Status {
	t.Helper()
	const patience = 30 * time.Second
	timeout := time.After(patience)
	for {
		select {
		case status := <-s.news:
			if slices.Contains(states, status.State) {
				return status
			}
		case <-timeout:
			t.Fatalf("none of %s within %v: %+v", states, patience, s.Status())
		}
	}
}

// TestStoppedPluginIsReplaced: a process that is stopped is found although nobody
// calls it and its calls may take an hour.
func TestStoppedPluginIsReplaced(t *testing.T) {
	s := supervise(t, newDevice(t, hsmsim.Luna), time.Hour)
	stopped := s.ready(t, 0)
	if err := unix.Kill(stopped, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.ready(t, stopped)
	if err := s.Token().Health(t.Context()); err != nil {
		t.Error(err)
	}
}

// restarts is how many restarts TestRestartsLeaveNothing makes: KMSBROKER_RESTARTS,
// or a few.
func restarts(t *testing.T) int {
	t.Helper()
	text := os.Getenv("KMSBROKER_RESTARTS")
	if text == "" {
		return 40
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRestartsLeaveNothing kills plugins over and over. What their supervisors
// hold after the last restart is what they held after the first tenth of them.
func TestRestartsLeaveNothing(t *testing.T) {
	tmp, err := os.MkdirTemp("", "kb") // short, for the sake of the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	t.Cleanup(func() { os.RemoveAll(tmp) })

	// Several at once, because each supervisor paces its restarts.
	const backends = 8
	var all [backends]*supervised
	for i := range all {
		all[i] = supervise(t, newDevice(t, hsmsim.Luna), 30*time.Second)
	}
	kill := func(times int) {
		var wg sync.WaitGroup
		for _, s := range all {
			wg.Go(func() { s.kill(t, times) })
		}
		wg.Wait()
	}
	each := (restarts(t) + backends - 1) / backends
	first := (each + 9) / 10
	kill(first)
	before := observe(t, tmp)
	kill(each - first)
	after := observe(t, tmp)
	t.Logf("after %d restarts: %+v", first*backends, before)
	t.Logf("after %d restarts: %+v", each*backends, after)
	after.compare(t, before)

	for _, s := range all {
		s.stop()
		if n := s.device.Failures("co"); n != 0 {
			t.Errorf("%d wrong PINs were counted", n)
		}
	}
	if end := observe(t, tmp); end.children != 0 || end.sockets != 0 {
		t.Errorf("after the supervisors ended: %+v", end)
	}
}

// kill kills the process and waits until the next one serves, several times.
func (s *supervised) kill(t *testing.T, times int) {
	pid := s.Status().PID
	if pid == 0 {
		pid = s.ready(t, 0)
	}
	for range times {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Errorf("kill %d: %v", pid, err)
			return
		}
		pid = s.ready(t, pid)
		if err := s.Token().Health(t.Context()); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
}

// holdings is what this process holds.
type holdings struct {
	goroutines, descriptors, threads, children int
	files, sockets                             int // in the temporary directory
	heap, resident                             int // KiB
}

// observe returns the least of each within a second, because what is on its way
// out, or a health check on its way, is no leak.
func observe(t *testing.T, tmp string) holdings {
	t.Helper()
	const samples = 20
	least := sample(t, tmp)
	for range samples {
		time.Sleep(time.Second / samples)
		now := sample(t, tmp)
		least = holdings{
			goroutines: min(least.goroutines, now.goroutines), descriptors: min(least.descriptors, now.descriptors),
			threads: min(least.threads, now.threads), children: min(least.children, now.children),
			files: min(least.files, now.files), sockets: min(least.sockets, now.sockets),
			heap: min(least.heap, now.heap), resident: min(least.resident, now.resident),
		}
	}
	return least
}

func sample(t *testing.T, tmp string) holdings {
	t.Helper()
	debug.FreeOSMemory()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	h := holdings{
		goroutines: runtime.NumGoroutine(), descriptors: entries(t, "/proc/self/fd"), threads: entries(t, "/proc/self/task"),
		heap: int(memory.HeapAlloc >> 10), resident: resident(t),
	}
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		if content, err := os.ReadFile(list); err == nil { // else the thread has ended
			h.children += len(strings.Fields(string(content)))
		}
	}
	err = filepath.WalkDir(tmp, func(_ string, entry fs.DirEntry, err error) error {
		h.files++
		if err == nil && entry.Type() == fs.ModeSocket {
			h.sockets++
		}
		return nil // also when something vanished meanwhile
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func entries(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// resident is the resident set in KiB (proc(5), statm).
func resident(t *testing.T) int {
	t.Helper()
	content, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(content))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() >> 10
}

// compare demands that nothing has grown. The runtime keeps threads, and memory
// in pieces, so these get a margin that does not depend on the restarts.
func (h holdings) compare(t *testing.T, before holdings) {
	t.Helper()
	const spareThreads, spareHeap, spareResident = 8, 256, 16 << 10
	for _, it := range []struct {
		name          string
		before, after int
		spare         int
	}{
		{"goroutines", before.goroutines, h.goroutines, 0},
		{"descriptors", before.descriptors, h.descriptors, 0},
		{"children", before.children, h.children, 0},
		{"files", before.files, h.files, 0},
		{"sockets", before.sockets, h.sockets, 0},
		{"threads", before.threads, h.threads, spareThreads},
		{"KiB of heap", before.heap, h.heap, spareHeap},
		{"KiB resident", before.resident, h.resident, spareResident},
	} {
		if it.after > it.before+it.spare {
			t.Errorf("%s grew from %d to %d", it.name, it.before, it.after)
		}
	}
}
