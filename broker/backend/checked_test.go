package backend

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

func TestLeaks(t *testing.T) {
	for _, tt := range []struct {
		pin, text string
		want      bool
	}{
		{"correct-horse", "refused: correct-horse", true},
		{"correct-horse", "pin=xcorrect-horsex", true},
		{"correct-horse", "refused", false},
		{"1234", "log in with 1234", true},
		{"1234", "PIN=1234", true},
		{"1234", "51234 or 1234", true},
		{"1234", "serial 9001234", false},
		{"1234", "id ab1234cd", false},
		{"1234", "ä1234", false},
		{"11", "x111", false},
	} {
		c := checked{pin: []byte(tt.pin)}
		if got := c.leaks(tt.text); got != tt.want {
			t.Errorf("leaks %q in %q: %v", tt.pin, tt.text, got)
		}
	}
}

// TestExposed finds the PIN where a careless plugin or administrator leaves it,
// and keeps it out of the daemon's log meanwhile.
func TestExposed(t *testing.T) {
	const pin = "correct-horse"
	for _, tt := range []struct {
		name, mode string
		variable   string
		want       []string
	}{
		{"nowhere", "good", "", nil},
		{"in the log", "babble", "", []string{"log"}},
		{"in the environment", "good", "VENDOR_PIN=" + pin, []string{"environment"}},
		{"in both", "babble", "VENDOR_PIN=" + pin, []string{"log", "environment"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			logins, err := keyring.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer logins.Close()
			sockets, err := os.MkdirTemp("", "kb")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(sockets)
			path, sum := pluginBinary(t)
			var log bytes.Buffer
			prompted := NewPromptedPIN()
			prompted.give([]byte(pin))
			c := newChecked(PluginConfig{
				Plugin: path, SHA256: sum, SocketDir: sockets, Settings: map[string]string{"attempts": dir + "/attempts"},
				Environment: []string{modeVariable + "=" + tt.mode, tt.variable},
				Log:         slog.New(slog.NewTextHandler(&log, nil)), Backend: "hsm", Logins: logins, Prompted: prompted,
			}, []byte(pin))
			if _, err := c.open(t.Context(), LaunchPlugin(c.config)); err != nil {
				t.Fatal(err)
			}
			// Its log is read to the end when the process has ended.
			first := c.process
			looked, found, err := c.exposed()
			first.Kill()
			if err != nil || !slices.Equal(looked, []string{"log", "arguments", "environment"}) {
				t.Fatalf("looked at %v, %v", looked, err)
			}
			if c.logged.Load() && !slices.Contains(found, "log") {
				found = slices.Insert(found, 0, "log")
			}
			if !slices.Equal(found, tt.want) {
				t.Errorf("found in %v, want %v", found, tt.want)
			}
			if strings.Contains(log.String(), pin) {
				t.Error("the PIN reached the log")
			}
			if withheld := strings.Contains(log.String(), "withheld"); withheld != slices.Contains(tt.want, "log") {
				t.Errorf("log:\n%s", log.String())
			}
		})
	}
}
