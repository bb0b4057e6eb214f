package system

import (
	"net/http"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestInterruptedByCtrlC: whatever an import waits for, Ctrl-C ends the command at
// once and says how it goes on, and that command ends it with one CMK and one HSM key.
func TestInterruptedByCtrlC(t *testing.T) {
	for _, action := range []string{"CreateKey", "GetParametersForImport", "ImportKeyMaterial", "Encrypt"} {
		t.Run(action, func(t *testing.T) {
			s := stage.New(t, stage.Options{})
			s.Start()
			asked, answer := make(chan struct{}, 1), make(chan struct{})
			s.Intercept(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				if r.Header.Get("X-Acs-Action") == action {
					select {
					case asked <- struct{}{}:
						<-answer
					default:
					}
				}
				return true
			})
			command := s.StartCtl(s.Control(), "key", "import", "app-1", "--backend", "hsm")
			<-asked
			command.Interrupt()
			s.Refused(command.Wait(), 1, "interrupted", "key import app-1`")
			close(answer)
			s.Intercept(nil)
			key := s.Continue("app-1")
			if n, extra := s.Objects(); n != 1 || extra != 0 {
				t.Errorf("%d HSM keys and %d other objects", n, extra)
			}
			if cmks := s.CMKs(); len(cmks) != 1 || cmks[0] != key.KeyID {
				t.Errorf("CMKs %v, the key has %s", cmks, key.KeyID)
			}
			if shown := s.Ctl(s.Control(), "status"); strings.Contains(shown.Stdout, "nfinished") {
				t.Errorf("something is unfinished:\n%s", shown.Stdout)
			}
		})
	}
}
