// Package bench measures the broker beside what it is compared with, in turns in
// one run, so that a busy machine slows both. Ratios travel; times do not.
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
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

const (
	rounds = 7
	turn   = 700 * time.Millisecond
)

// side is one of two ways to do the same.
type side struct {
	name string
	do   func(context.Context) error
}

// compare runs both sides in turns and reports the median throughput of each,
// and the median of the ratios ours to theirs, round by round.
func compare(b *testing.B, callers int, theirs, ours side) {
	b.Helper()
	var ratios, a, z []float64
	rate(b, callers, theirs) // warm up
	rate(b, callers, ours)
	for range rounds {
		t, o := rate(b, callers, theirs), rate(b, callers, ours)
		a, z, ratios = append(a, t), append(z, o), append(ratios, o/t)
	}
	b.ReportMetric(median(a), theirs.name+"/s")
	b.ReportMetric(median(z), ours.name+"/s")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(0, "ns/op")
}

func rate(b *testing.B, callers int, s side) float64 {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var calls atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for time.Since(start) < turn {
				if err := s.do(ctx); err != nil {
					failed.Store(&err)
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		b.Fatalf("%s: %v", s.name, *err)
	}
	return float64(calls.Load()) / time.Since(start).Seconds()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// BenchmarkWrap compares wrapping through the plugin process with the same
// engine and library in this process.
func BenchmarkWrap(b *testing.B) {
	fixture := softhsmtest.New(b)
	b.Setenv("SOFTHSM2_CONF", fixture.ConfPath)
	direct, err := pkcs11.Open(b.Context(), pkcs11.Config{Library: fixture.Library, TokenLabel: fixture.Label, PIN: hsm.PIN([]byte(fixture.PIN))})
	if err != nil {
		b.Fatal(err)
	}
	defer direct.Close(context.Background())
	remote := openPlugin(b, fixture)
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
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			compare(b, callers, side{"in-process", wrap(direct)}, side{"plugin", wrap(remote)})
		})
	}
}

func openPlugin(b *testing.B, fixture *softhsmtest.Fixture) hsm.Token {
	b.Helper()
	path := filepath.Join(stage.Binaries(b), "plugins", "softhsm")
	sockets := filepath.Join(b.TempDir(), "s")
	if err := os.Mkdir(sockets, 0o700); err != nil {
		b.Fatal(err)
	}
	process, err := plugin.Start(b.Context(), plugin.Command{
		Path: path, SHA256: checksum(b, path), Env: []string{fixture.Env()}, SocketDir: sockets,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(process.Kill)
	token, err := process.Open(b.Context(), plugin.OpenConfig{
		Settings: map[string]string{"token_label": fixture.Label}, PIN: hsm.PIN([]byte(fixture.PIN)),
	})
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
