package system

import (
	"syscall"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestKilledPlugin: a crash in the vendor library costs the calls in flight and
// nothing else.
func TestKilledPlugin(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	before := s.Backend()
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil)
	s.Import("app-2")
	if after := s.Backend(); after.PID == before.PID || after.State != "ready" || after.Restarts != 1 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// TestKilledDaemon: its plugins end with it, and the next one takes over.
func TestKilledDaemon(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	plugin := s.Backend().PID
	gone := watch(t, plugin)
	daemon.Kill()
	gone()
	s.Start()
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil)
	s.Must(s.Ctl(s.Control(), "key", "verify", "app-1"), nil)
}
