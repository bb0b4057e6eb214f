// Package softhsmtest makes SoftHSM tokens for tests. It drives softhsm2-util
// instead of the library, so that tests of the pure Go daemon can use it too.
package softhsmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Fixture is a SoftHSM configuration with a token of its own in it, which is
// removed with the test.
type Fixture struct {
	Library  string // absolute path of libsofthsm2.so
	ConfPath string // value for SOFTHSM2_CONF
	Label    string
	Serial   string
	PIN      string // of the user, that is the Crypto Officer
	SOPIN    string
}

// New makes a configuration directory and one token in it.
func New(t testing.TB) *Fixture {
	t.Helper()
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	f := &Fixture{
		Library:  library(t),
		ConfPath: filepath.Join(dir, "softhsm2.conf"),
		Label:    "kmsbroker-test",
		PIN:      "1234-user",
		SOPIN:    "5678-officer",
	}
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", tokens)
	if err := os.WriteFile(f.ConfPath, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Serial = f.AddToken(t, f.Label)
	return f
}

// Env is the environment that points SoftHSM at the fixture.
func (f *Fixture) Env() string { return "SOFTHSM2_CONF=" + f.ConfPath }

// AddToken makes another token with the same PINs and returns its serial. The
// label may be in use already.
func (f *Fixture) AddToken(t testing.TB, label string) (serial string) {
	t.Helper()
	before := f.serials(t)
	f.util(t, "--init-token", "--free", "--label", label, "--so-pin", f.SOPIN, "--pin", f.PIN)
	for serial := range f.serials(t) {
		if !before[serial] {
			return serial
		}
	}
	t.Fatalf("softhsm2-util made no token with label %q", label)
	return ""
}

// RemoveToken deletes a token with everything in it.
func (f *Fixture) RemoveToken(t testing.TB, serial string) {
	t.Helper()
	f.util(t, "--delete-token", "--serial", serial)
}

func (f *Fixture) serials(t testing.TB) map[string]bool {
	t.Helper()
	serials := make(map[string]bool)
	for line := range strings.Lines(f.util(t, "--show-slots")) {
		if serial, ok := strings.CutPrefix(strings.TrimSpace(line), "Serial number:"); ok {
			if serial = strings.TrimSpace(serial); serial != "" {
				serials[serial] = true
			}
		}
	}
	return serials
}

func (f *Fixture) util(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("softhsm2-util", args...)
	cmd.Env = append(os.Environ(), f.Env())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}

// library finds SoftHSM where Debian installs it.
func library(t testing.TB) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("SoftHSM is not installed (Debian package softhsm2)")
	return ""
}
