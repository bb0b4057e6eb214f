package plugin_test

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
)

// buildSoftHSM builds the real plugin.
func buildSoftHSM(t *testing.T) (path string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "softhsm")
	if out, err := exec.Command("go", "build", "-o", path, "../../plugins/softhsm").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// startSoftHSM starts the plugin on a token of its own.
func startSoftHSM(t *testing.T, path string) (*softhsmtest.Fixture, *plugin.Process) {
	t.Helper()
	fixture := softhsmtest.New(t)
	return fixture, restart(t, path, fixture)
}

// restart starts the plugin on the tokens of a fixture.
func restart(t *testing.T, path string, fixture *softhsmtest.Fixture) *plugin.Process {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	sockets, err := os.MkdirTemp("", "hsm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	process, err := plugin.Start(t.Context(), plugin.Command{
		Path: path, SHA256: sum[:], Env: []string{fixture.Env()}, SocketDir: sockets,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)
	return process
}

func TestSoftHSM(t *testing.T) {
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "of-the-host")
	fixture, process := startSoftHSM(t, buildSoftHSM(t))
	token, err := process.Open(t.Context(), plugin.OpenConfig{
		Settings: map[string]string{"token_label": fixture.Label, "max_sessions": "4"}, PIN: hsm.PIN([]byte(fixture.PIN)),
	})
	if err != nil {
		t.Fatal(err)
	}
	checkSecrets(t, process, fixture.PIN)

	info, err := token.Describe(t.Context())
	if err != nil || info.Serial != fixture.Serial || len(info.WrappingAlgorithms) == 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	key, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "payments"})
	if err != nil {
		t.Fatal(err)
	}
	kcv, err := token.CheckValue(t.Context(), key.ID)
	if err != nil {
		t.Fatal(err)
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki})
	if err != nil {
		t.Fatal(err)
	}
	value, err := rsa.DecryptOAEP(sha1.New(), nil, private, wrapped, nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(value)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, aes.BlockSize)
	block.Encrypt(zeros, zeros)
	if opened := hsm.CheckValue(zeros[:3]); opened != kcv || len(value) != 32 {
		t.Errorf("opened %d bytes with check value %s, want 32 with %s", len(value), opened, kcv)
	}
	if sealed, err := token.SealKey(t.Context(), key.ID); err != nil || sealed.Extractable {
		t.Errorf("SealKey: %+v, %v", sealed, err)
	}
	if _, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki}); !errors.Is(err, hsm.NotExportable) {
		t.Errorf("Wrap of a sealed key: %v", err)
	}
	if err := token.DestroyKey(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	if err := token.DestroyKey(t.Context(), key.ID); !errors.Is(err, hsm.NotFound) {
		t.Errorf("second DestroyKey: %v", err)
	}
	process.Shutdown(t.Context())
	<-process.Exited()
	if err := token.Health(t.Context()); !errors.Is(err, hsm.TokenGone) {
		t.Errorf("Health after Shutdown: %v", err)
	}
}

// checkSecrets looks for the PIN and the host's environment where other
// processes could. Only root can read environ of an undumpable process.
func checkSecrets(t *testing.T, process *plugin.Process, pin string) {
	t.Helper()
	for _, name := range []string{"cmdline", "environ"} {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", process.PID(), name))
		if os.Geteuid() != 0 && name == "environ" {
			if !errors.Is(err, os.ErrPermission) {
				t.Errorf("%s can be read: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), pin) || strings.Contains(string(content), "of-the-host") {
			t.Errorf("%s shows secrets: %q", name, content)
		}
	}
}

func TestSoftHSMRefusals(t *testing.T) {
	path := buildSoftHSM(t)
	for _, test := range []struct {
		name     string
		settings map[string]string
		pin      string
		want     hsm.Reason
	}{
		{"wrong PIN", map[string]string{"token_label": "kmsbroker-test"}, "0000-wrong", hsm.PINIncorrect},
		{"no PIN", map[string]string{"token_label": "kmsbroker-test"}, "", hsm.PINMissing},
		{"no such token", map[string]string{"token_label": "nobody"}, "1234-user", hsm.NotFound},
		{"unknown setting", map[string]string{"slot": "0"}, "1234-user", hsm.Misconfigured},
		{"sessions", map[string]string{"token_label": "kmsbroker-test", "max_sessions": "many"}, "1234-user", hsm.Misconfigured},
		{"library", map[string]string{"token_label": "kmsbroker-test", "library": "/nowhere.so"}, "1234-user", hsm.Misconfigured},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, process := startSoftHSM(t, path)
			_, err := process.Open(t.Context(), plugin.OpenConfig{Settings: test.settings, PIN: hsm.PIN([]byte(test.pin))})
			if hsm.ReasonOf(err) != test.want || err == nil {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestSoftHSMKilled(t *testing.T) {
	fixture, process := startSoftHSM(t, buildSoftHSM(t))
	token, err := process.Open(t.Context(), plugin.OpenConfig{
		Settings: map[string]string{"token_serial": fixture.Serial}, PIN: hsm.PIN([]byte(fixture.PIN)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(process.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-process.Exited()
	if err := token.Health(t.Context()); !errors.Is(err, hsm.TokenGone) {
		t.Errorf("got %v", err)
	}
}

func TestSoftHSMMakesAToken(t *testing.T) {
	path := buildSoftHSM(t)
	fixture, process := startSoftHSM(t, path)
	serial, err := process.InitToken(t.Context(), hsm.TokenSpec{Label: "fresh", SOPIN: []byte("5678-fresh"), PIN: []byte("1234-fresh")})
	if err != nil {
		t.Fatal(err)
	}
	process.Shutdown(t.Context())
	token, err := restart(t, path, fixture).Open(t.Context(), plugin.OpenConfig{
		Settings: map[string]string{"token_serial": serial, "token_label": "fresh"}, PIN: hsm.PIN([]byte("1234-fresh")),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Health(t.Context()); err != nil {
		t.Error(err)
	}
}
