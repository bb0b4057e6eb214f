package bench

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// device is a token and how to reach it.
type device struct {
	plugin              string // under bin/plugins
	library, label, pin string
	env                 []string
	settings            map[string]string // beside the label
}

// BenchmarkWrap compares wrapping through the plugin process with the same
// engine and library in this process. SoftHSM is the hardest case: it computes on
// the processors that the carrier needs too. A Luna is waited for, here for a
// millisecond with each of a wrap's ten calls.
func BenchmarkWrap(b *testing.B) {
	b.Run("softhsm", func(b *testing.B) {
		f := softhsmtest.New(b)
		wrapOn(b, &device{plugin: "softhsm", library: f.Library, label: f.Label, pin: f.PIN, env: []string{f.Env()}})
	})
	b.Run("luna", func(b *testing.B) {
		sim := hsmsim.New(b, hsmsim.Luna, hsmsim.Set("latency_min_ms", "1"), hsmsim.Set("latency_max_ms", "1"))
		wrapOn(b, &device{
			plugin: "luna", library: sim.Library, label: sim.Label, pin: sim.PIN, env: sim.Env,
			settings: map[string]string{"library": sim.Library},
		})
	})
}

func wrapOn(b *testing.B, d *device) {
	b.Helper()
	for _, entry := range d.env {
		name, value, _ := strings.Cut(entry, "=")
		b.Setenv(name, value)
	}
	direct, err := pkcs11.Open(b.Context(), pkcs11.Config{Library: d.library, TokenLabel: d.label, PIN: hsm.PIN([]byte(d.pin))})
	if err != nil {
		b.Fatal(err)
	}
	defer direct.Close(context.Background())
	key, err := direct.GenerateKey(b.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		b.Fatal(err)
	}
	req := hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki}
	wrap := func(t hsm.Token) func(context.Context) error {
		return func(ctx context.Context) error { _, err := t.Wrap(ctx, req); return err }
	}
	remote, frames := openPlugin(b, d), openFrames(b, d, req)
	for _, callers := range []int{1, lanes} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			compare(b, callers, side{"in-process", wrap(direct)}, side{"plugin", wrap(remote)}, side{"frames", frames})
		})
	}
}

func openPlugin(b *testing.B, d *device) hsm.Token {
	b.Helper()
	path := filepath.Join(stage.Binaries(b), "plugins", d.plugin)
	sockets := filepath.Join(b.TempDir(), "s")
	if err := os.Mkdir(sockets, 0o700); err != nil {
		b.Fatal(err)
	}
	process, err := plugin.Start(b.Context(), plugin.Command{
		Path: path, SHA256: checksum(b, path), Env: d.env, SocketDir: sockets,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(process.Kill)
	settings := map[string]string{"token_label": d.label}
	maps.Copy(settings, d.settings)
	token, err := process.Open(b.Context(), plugin.OpenConfig{Settings: settings, PIN: hsm.PIN([]byte(d.pin))})
	if err != nil {
		b.Fatal(err)
	}
	return token
}

func checksum(b *testing.B, path string) []byte {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		b.Fatal(err)
	}
	return h.Sum(nil)
}
