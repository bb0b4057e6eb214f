package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
)

func TestFindLibrary(t *testing.T) {
	dir := t.TempDir()
	packaged, minimal := filepath.Join(dir, "packaged.so"), filepath.Join(dir, "minimal.so")
	usual := []string{packaged, minimal}
	write := func(t *testing.T, path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(path) })
	}
	conf := filepath.Join(dir, chrystoki.FileName)
	for _, test := range []struct {
		name       string
		installed  []string
		conf       string // none when empty
		want, says string
	}{
		{name: "package", installed: usual, conf: "Chrystoki2 = {\nLibUNIX64 = /opt/lib64.so;\n}\n", want: packaged},
		{name: "minimal client", installed: []string{minimal}, want: minimal},
		{name: "LibUNIX64", conf: "Chrystoki2 = {\nLibUNIX = /opt/lib.so;\nLibUNIX64 = /opt/lib64.so;\n}\n", want: "/opt/lib64.so"},
		{name: "LibUNIX", conf: "Chrystoki2 = {\nLibUNIX = /opt/lib.so;\n}\n", want: "/opt/lib.so"},
		{name: "none of them", says: "there is no Chrystoki.conf in " + dir},
		{name: "neither key", conf: "Chrystoki2 = {\n}\n", says: "neither LibUNIX64 nor LibUNIX is set in " + conf},
		{name: "broken", conf: "Chrystoki2 = {\nLibUNIX64\n}\n", says: conf + ", line 2: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, path := range test.installed {
				write(t, path, "")
			}
			if test.conf != "" {
				write(t, conf, test.conf)
			}
			got, err := findLibrary(usual, dir)
			if test.says != "" {
				if !errors.Is(err, hsm.Misconfigured) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %q, %v; want %q", got, err, test.says)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestOpenRefusesSettings(t *testing.T) {
	for says, settings := range map[string]map[string]string{
		`"client_dir" is unknown`:    {"client_dir": "/opt/dpod"},
		"setting max_sessions":       {"max_sessions": "31"},
		`role "auditor"`:             {"role": "auditor", "library": "/nowhere/libCryptoki2.so"},
		"libCryptoki2.so does not e": {"library": "/nowhere/libCryptoki2.so"},
	} {
		if _, err := open(t.Context(), request(settings)); !errors.Is(err, hsm.Misconfigured) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: got %v, want %q", settings, err, says)
		}
	}
}

// TestConfigDir: it names the library, and the library's configuration.
func TestConfigDir(t *testing.T) {
	f := softhsmtest.New(t)
	t.Setenv("SOFTHSM2_CONF", f.ConfPath)
	t.Setenv(chrystoki.DirVariable, "/elsewhere")
	dir := t.TempDir()
	conf := "Chrystoki2 = {\n LibUNIX64 = " + f.Library + ";\n}\n"
	if err := os.WriteFile(filepath.Join(dir, chrystoki.FileName), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := open(t.Context(), request(map[string]string{"config_dir": dir, "token_label": f.Label}))
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if got := os.Getenv(chrystoki.DirVariable); got != dir {
		t.Errorf("the library was pointed to %q", got)
	}
	for dir, word := range map[string]string{"relative": "absolute", t.TempDir(): "no such file"} {
		if _, err := open(t.Context(), request(map[string]string{"config_dir": dir, "token_label": f.Label})); !errors.Is(err, hsm.Misconfigured) || !strings.Contains(err.Error(), word) {
			t.Errorf("config_dir %s: %v", dir, err)
		}
	}
}
