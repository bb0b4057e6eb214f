package system

import (
	"os"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestRemovedSockets: who removes sockets, or puts something in their place, does not
// take the daemon from those who come later, nor from those who are connected.
func TestRemovedSockets(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	connected := newClient(t, s)
	encrypts := func(c *client.Client) {
		t.Helper()
		if _, err := c.Encrypt(t.Context(), "app-1", []byte("x"), nil); err != nil {
			t.Error(err)
		}
	}
	encrypts(connected)
	if err := os.Remove(s.Application()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.Control(), s.Control()+".away"); err != nil {
		t.Fatal(err)
	}
	s.Write("run/admin/control.sock", "", 0o600) // which is in the way
	encrypts(connected)
	awaitFile(t, s.Application())
	encrypts(newClient(t, s))
	if err := daemon.Wait("cannot be made again"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(s.Control()); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, s.Control())
	s.Must(s.Ctl(s.Control(), "status"), nil)
	if made := scrape(t, s)[`kmsbroker_sockets_remade_total{door="application"`]; made != 1 {
		t.Errorf("%v sockets were made again", made)
	}
	daemon.Stop()
	for _, path := range []string{s.Application(), s.Control()} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("a stopped daemon left %s: %v", path, err)
		}
	}
}

func awaitFile(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err := os.Lstat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come back", path)
		}
	}
}
