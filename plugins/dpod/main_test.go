package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
)

func TestFIPSIsAssumed(t *testing.T) {
	for _, test := range []struct {
		name    string
		setting string
		told    *bool
		want    bool
	}{
		{"default", "", nil, true},
		{"service without", "false", nil, false},
		{"device says off", "true", new(false), false},
		{"device says on", "false", new(true), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			fips, err := readFIPS(plugin.ReadSettings(map[string]string{"fips": test.setting}))
			if err != nil {
				t.Fatal(err)
			}
			inspect := assumeFIPS(fips, func(pkcs11.Slot) pkcs11.Details { return pkcs11.Details{FIPS: test.told} })
			if got := inspect(pkcs11.Slot{}).FIPS; got == nil || *got != test.want {
				t.Errorf("got %v, want %t", got, test.want)
			}
		})
	}
	if _, err := readFIPS(plugin.ReadSettings(map[string]string{"fips": "maybe"})); !errors.Is(err, hsm.Misconfigured) {
		t.Errorf("got %v", err)
	}
}

// The C library finds the configuration that the setting names, whatever the
// environment said before, and a failure on the way is told as such.
func TestOpenPointsTheLibraryToItsConfiguration(t *testing.T) {
	d := newClientDir(t)
	library := filepath.Join(d.path, "libs/64/libCryptoki2.so")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, "testdata/unreachable.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	seen := filepath.Join(t.TempDir(), "seen")
	t.Setenv("SEEN", seen)
	t.Setenv(chrystoki.DirVariable, "/somewhere/else")
	// The fixture's certificates are valid at another time.
	for _, name := range []string{"server-certificate.pem", "partition-ca-certificate.pem", "partition-certificate.pem"} {
		d.write(t, name, validNow(t), 0o644)
	}
	_, err := open(t.Context(), plugin.OpenRequest{
		Settings: map[string]string{"client_dir": d.path, "token_label": "payments"}, PIN: hsm.PIN([]byte("1234567")),
	})
	if !errors.Is(err, hsm.TokenGone) || !strings.Contains(err.Error(), "token service") {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(seen); err != nil || string(got) != d.path {
		t.Errorf("the library was pointed to %q, %v; want %q", got, err, d.path)
	}
}

func TestOpenRefusesSettings(t *testing.T) {
	d := newClientDir(t)
	for says, settings := range map[string]map[string]string{
		`"library" is unknown`:         {"client_dir": d.path, "library": "/usr/lib/libCryptoki2.so"},
		"setting max_sessions":         {"client_dir": d.path, "max_sessions": "31"},
		"setting fips":                 {"client_dir": d.path, "fips": "140-3"},
		"client_dir is not configured": {"token_label": "payments"},
	} {
		_, err := open(t.Context(), plugin.OpenRequest{Settings: settings, PIN: hsm.PIN([]byte("1234567"))})
		if !errors.Is(err, hsm.Misconfigured) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: got %v, want %q", settings, err, says)
		}
	}
}

func validNow(t *testing.T) string {
	t.Helper()
	return certificate(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}
