package system

import (
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestTop looks at a daemon at work.
func TestTop(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	c := newClient(t, s)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := c.Encrypt(t.Context(), "app-1", []byte("x"), nil); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	shown := s.Ctl(s.Control(), "top", "--metrics", s.Path("run/metrics.sock"), "--every", "500ms")
	close(stop)
	<-done
	s.Must(shown, nil)
	for _, line := range []string{"kmsbrokerd ", "backend hsm: ready", "circuit closed", "application  Encrypt    ok", "cn-hangzhou  Encrypt"} {
		if !strings.Contains(shown.Stdout, line) {
			t.Errorf("it lacks %q:\n%s", line, shown.Stdout)
		}
	}
	s.Refused(s.Ctl(s.Control(), "top", "--every", "1ms"), 2, "--every")
	s.Refused(s.Ctl(s.Control(), "top", "--metrics", s.Path("none")), 1, "none")
}
