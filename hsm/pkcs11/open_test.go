package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestLibraryPaths(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, config := newConfig(t)
	foreign := filepath.Join(dir, "foreign.so")
	object, err := os.ReadFile(config.Library)
	if err != nil {
		t.Fatal(err)
	}
	object[18], object[19] = 0x08, 0x00 // e_machine: MIPS
	if err := os.WriteFile(foreign, object, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, path, says string }{
		{"empty", "", "no PKCS#11 library"},
		{"relative", "libsofthsm2.so", "must be absolute"},
		{"absent", filepath.Join(dir, "absent.so"), "does not exist"},
		{"directory", dir, "not a regular file"},
		{"device", "/dev/null", "not a regular file"},
		{"text", text, "not an ELF"},
		{"other processor", foreign, "another processor"},
		{"program", self, ""},
		{"other library", libc(t), "C_GetFunctionList"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := config
			config.PIN, config.Library = hsm.PIN([]byte("1234")), test.path
			_, err := Open(t.Context(), config)
			wantReason(t, err, hsm.Misconfigured)
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %q does not say %q", err, test.says)
			}
		})
	}
}

func libc(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/lib/*/libc.so.6")
	if len(found) == 0 {
		t.Fatal("no C library found")
	}
	return found[0]
}

func TestTokenSelection(t *testing.T) {
	f, config := newConfig(t)
	other := f.AddToken(t, f.Label)
	try := func(serial, label string) (*Token, error) {
		config := config
		config.PIN, config.TokenSerial, config.TokenLabel = hsm.PIN([]byte(f.PIN)), serial, label
		return Open(t.Context(), config)
	}
	t.Run("two of one label", func(t *testing.T) {
		_, err := try("", f.Label)
		wantReason(t, err, hsm.Misconfigured)
		if !strings.Contains(err.Error(), other) || !strings.Contains(err.Error(), f.Serial) {
			t.Errorf("error %q does not name both serials", err)
		}
	})
	t.Run("absent", func(t *testing.T) {
		_, err := try("", "nobody")
		wantReason(t, err, hsm.NotFound)
		if !strings.Contains(err.Error(), f.Label) || !strings.Contains(err.Error(), f.Serial) {
			t.Errorf("error %q does not list the tokens", err)
		}
	})
	t.Run("serial of another label", func(t *testing.T) {
		_, err := try(other, "nobody")
		wantReason(t, err, hsm.NotFound)
	})
	t.Run("neither", func(t *testing.T) {
		_, err := try("", "")
		wantReason(t, err, hsm.Misconfigured)
	})
	t.Run("serial", func(t *testing.T) {
		token, err := try(other, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := token.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		if info, err := token.Describe(t.Context()); err != nil || info.Serial != other {
			t.Errorf("opened %+v, %v", info, err)
		}
	})
}

func TestWrongPINIsTriedOnce(t *testing.T) {
	f, shim, config := newShim(t)
	var handed []byte
	config.PIN = func(context.Context, hsm.TokenID) ([]byte, error) {
		if n := shim.calls(t, "C_Login"); n != 0 {
			t.Errorf("the PIN was asked for after %d logins", n)
		}
		handed = []byte("wrong-pin")
		return handed, nil
	}
	token, err := Open(t.Context(), config)
	wantReason(t, err, hsm.PINIncorrect)
	if token != nil {
		t.Error("Open returned a token with its error")
	}
	if strings.Contains(err.Error(), "wrong-pin") {
		t.Error("the error shows the PIN")
	}
	if n := shim.calls(t, "C_Login"); n != 1 {
		t.Errorf("C_Login was called %d times", n)
	}
	if !bytes.Equal(handed, make([]byte, len("wrong-pin"))) {
		t.Error("the PIN was not wiped")
	}
	// The failed attempt left nothing behind in the library.
	config.PIN = hsm.PIN([]byte(f.PIN))
	openToken(t, config)
}

// TestPINIsAskedForLast: whoever hands out the PIN counts an attempt, so nobody
// asks before a login is really about to happen, and a refusal forbids it.
func TestPINIsAskedForLast(t *testing.T) {
	_, shim, config := newShim(t)
	forbidden := errors.New("not now")
	asked := 0
	config.PIN = func(context.Context, hsm.TokenID) ([]byte, error) { asked++; return nil, forbidden }
	if _, err := Open(t.Context(), config); !errors.Is(err, forbidden) || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	for what, absent := range map[string]func(*Config){
		"no token":         func(c *Config) { c.TokenLabel, c.TokenSerial = "nobody", "" },
		"no library":       func(c *Config) { c.Library = "/nonexistent/library.so" },
		"no such role":     func(c *Config) { c.Role = "auditor" },
		"no session to be": func(*Config) { shim.arm(t, "C_OpenSession before 0x30") },
	} {
		config := config
		absent(&config)
		if _, err := Open(t.Context(), config); err == nil || asked != 1 {
			t.Errorf("%s: asked %d times, %v", what, asked, err)
		}
	}
	if n := shim.calls(t, "C_Login"); n != 0 {
		t.Errorf("C_Login was called %d times", n)
	}
}

func TestLostLoginIsNotRepeated(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	key := generate(t, token)
	if err := token.module.Logout(token.login); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"Key":        func() error { _, err := token.Key(t.Context(), key.ID); return err },
		"Keys":       func() error { _, err := token.Keys(t.Context()); return err },
		"Health":     func() error { return token.Health(t.Context()) },
		"SealKey":    func() error { _, err := token.SealKey(t.Context(), key.ID); return err },
		"DestroyKey": func() error { return token.DestroyKey(t.Context(), key.ID) },
		"Describe":   func() error { _, err := token.Describe(t.Context()); return err },
		"GenerateKey": func() error {
			_, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: key.ID, Label: "x"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { wantReason(t, call(), hsm.TokenGone) })
	}
	if n := shim.calls(t, "C_Login"); n != 1 {
		t.Errorf("C_Login was called %d times", n)
	}
}

func TestPINProblems(t *testing.T) {
	_, shim, config := newShim(t)
	t.Run("empty", func(t *testing.T) {
		config := config
		config.PIN = nil
		_, err := Open(t.Context(), config)
		wantReason(t, err, hsm.PINMissing)
		if n := shim.calls(t, "C_OpenSession"); n != 0 {
			t.Error("the device was asked")
		}
	})
	for code, want := range map[string]hsm.Reason{
		"0xA3": hsm.PINExpired, "0xA4": hsm.PINLocked, "0x80000007": hsm.PINLocked, "0x102": hsm.PINMissing, "0x103": hsm.NotPermitted,
	} {
		t.Run(code, func(t *testing.T) {
			config := config
			config.PIN = hsm.PIN([]byte("1234"))
			shim.arm(t, "C_Login before %s", code)
			_, err := Open(t.Context(), config)
			wantReason(t, err, want)
		})
	}
}

func TestSecondOpenInOneProcess(t *testing.T) {
	f, config := newConfig(t)
	token := openToken(t, config)
	config.PIN = hsm.PIN([]byte(f.PIN))
	_, err := Open(t.Context(), config)
	wantReason(t, err, hsm.Invalid)
	if err := token.Health(t.Context()); err != nil {
		t.Errorf("the first token suffered: %v", err)
	}
}
