package system

import (
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestTop looks at a daemon at work.
func TestTop(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	stop := keepEncrypting(t, newClient(t, s), "app-1")
	shown := s.Ctl(s.Control(), "top", "--metrics", s.Path("run/metrics.sock"), "--every", "500ms")
	stop()
	s.Must(shown, nil)
	for _, line := range []string{"kmsbrokerd ", "backend hsm: ready", "circuit closed", "application  Encrypt    ok", "cn-hangzhou  Encrypt"} {
		if !strings.Contains(shown.Stdout, line) {
			t.Errorf("it lacks %q:\n%s", line, shown.Stdout)
		}
	}
	s.Refused(s.Ctl(s.Control(), "top", "--every", "1ms"), 2, "--every")
	s.Refused(s.Ctl(s.Control(), "top", "--metrics", s.Path("none")), 1, "none")
}

// keepEncrypting has one call after the other under way, none of which may fail, until it
// is told to stop.
func keepEncrypting(t *testing.T, c *client.Client, key string) (stop func()) {
	t.Helper()
	told, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-told:
				return
			default:
			}
			if _, err := c.Encrypt(t.Context(), key, []byte("x"), nil); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	return func() { close(told); <-done }
}
