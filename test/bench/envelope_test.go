package bench

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// BenchmarkSeal compares a call in which the daemon seals or opens a message of
// 1 KiB, with policy and audit, with an empty call on the same socket. Goal for
// sealing: 0.6 of its throughput with 16 callers.
func BenchmarkSeal(b *testing.B) {
	r := newBroker(b, nil)
	plaintext := make([]byte, 1<<10)
	sealed, err := r.client.Seal(b.Context(), "app-1", plaintext, nil)
	if err != nil {
		b.Fatal(err)
	}
	seal := side{"seal", func(ctx context.Context) error {
		_, err := r.client.Seal(ctx, "app-1", plaintext, nil)
		return err
	}}
	open := side{"open", func(ctx context.Context) error {
		_, err := r.client.Open(ctx, sealed, nil)
		return err
	}}
	for _, callers := range []int{1, 16} {
		for _, ours := range []side{seal, open} {
			b.Run(fmt.Sprintf("%s/callers=%d", ours.name, callers), func(b *testing.B) {
				compare(b, callers, r.empty(), ours)
			})
		}
	}
}

// size of what is streamed, in bytes.
const size = 1 << 30

// seconds compares how long two ways take for a GiB each, in turns, and reports the
// median rates in MiB/s and the median of the ratios. Before each turn comes settle.
func seconds(b *testing.B, settle func(), theirs, ours side) {
	b.Helper()
	var ratios, t, o []float64
	for round := range rounds + 1 {
		took := map[string]float64{}
		for _, s := range []side{theirs, ours} {
			settle()
			began := time.Now()
			if err := s.do(b.Context()); err != nil {
				b.Fatalf("%s: %v", s.name, err)
			}
			took[s.name] = time.Since(began).Seconds()
		}
		if round > 0 { // the first warms up
			const mib = size >> 20
			t, o = append(t, mib/took[theirs.name]), append(o, mib/took[ours.name])
			ratios = append(ratios, took[theirs.name]/took[ours.name])
		}
	}
	b.ReportMetric(median(t), theirs.name+"-MiB/s")
	b.ReportMetric(median(o), ours.name+"-MiB/s")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkStream compares a GiB that the client seals or opens, from memory to
// nowhere, with bare AES-256-GCM in this process. Goal: 0.6 of its throughput.
func BenchmarkStream(b *testing.B) {
	r := newBroker(b, nil)
	memory := make([]byte, size)
	const segment = 64 << 10
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	bare := side{"gcm", func(context.Context) error {
		nonce, out := make([]byte, gcm.NonceSize()), make([]byte, 0, segment+gcm.Overhead())
		for at := 0; at < size; at += segment {
			gcm.Seal(out, nonce, memory[at:at+segment], nil)
		}
		return nil
	}}
	b.Run("seal", func(b *testing.B) {
		seconds(b, func() {}, bare, side{"seal", func(ctx context.Context) error {
			return r.client.SealWith(ctx, io.Discard, bytes.NewReader(memory), client.ToSeal{Key: "app-1", Size: size})
		}})
	})
	b.Run("open", func(b *testing.B) {
		sealed, err := r.client.Seal(b.Context(), "app-1", memory, nil)
		if err != nil {
			b.Fatal(err)
		}
		seconds(b, func() {}, bare, side{"open", func(ctx context.Context) error {
			return r.client.OpenStream(ctx, io.Discard, bytes.NewReader(sealed), nil)
		}})
	})
}

// BenchmarkFile compares `kmsbrokerctl encrypt --envelope` and decrypt on a file of
// a GiB with `cat in > out`. Ours has all of it on the disk before it renames, which
// cat leaves to the kernel; "synced" compares with a cat that does not.
// "resident-MiB" is the most memory that it had. Goals: 0.8, and less than 64 MiB.
func BenchmarkFile(b *testing.B) {
	r := newBroker(b, nil)
	dir := b.TempDir()
	in, sealed, out := filepath.Join(dir, "in"), filepath.Join(dir, "sealed"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, make([]byte, size), 0o600); err != nil {
		b.Fatal(err)
	}
	var resident int
	ctl := func(name, from, to string, args ...string) side {
		return side{name, func(ctx context.Context) error {
			args := append([]string{"--socket", r.socket, name, "--envelope", "--in", from, "--out", to}, args...)
			cmd := exec.CommandContext(ctx, filepath.Join(stage.Binaries(b), "kmsbrokerctl"), args...)
			var said bytes.Buffer
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				return err
			}
			done := make(chan struct{})
			var watching sync.WaitGroup
			watching.Go(func() { resident = max(resident, highWater(cmd.Process.Pid, done)) })
			err := cmd.Wait()
			close(done)
			watching.Wait()
			if err != nil {
				return fmt.Errorf("%w: %s", err, said.String())
			}
			return nil
		}}
	}
	shell := func(name, script string) side {
		return side{name, func(ctx context.Context) error {
			return exec.CommandContext(ctx, "sh", "-c", script, "sh", in, filepath.Join(dir, "copy")).Run()
		}}
	}
	// Whoever waits for the disk would also wait for what was removed before.
	settle := func() {
		for _, name := range []string{filepath.Join(dir, "copy"), out} {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				b.Fatal(err)
			}
		}
		unix.Sync()
	}
	if err := ctl("encrypt", in, sealed, "--key", "app-1").do(b.Context()); err != nil {
		b.Fatal(err)
	}
	for _, ours := range []side{ctl("encrypt", in, out, "--key", "app-1"), ctl("decrypt", sealed, out)} {
		for _, theirs := range []side{shell("cat", `cat "$1" > "$2"`), shell("synced", `cat "$1" > "$2" && sync "$2"`)} {
			b.Run(ours.name+"/"+theirs.name, func(b *testing.B) {
				resident = 0
				seconds(b, settle, theirs, ours)
				b.ReportMetric(float64(resident)/(1<<10), "resident-MiB")
			})
		}
	}
}

// highWater looks at the most memory of a process, in KiB, until it is done. What
// the kernel says at its end is not it: that counts ours before exec(2).
func highWater(pid int, done <-chan struct{}) int {
	most := 0
	for {
		select {
		case <-done:
			return most
		case <-time.After(10 * time.Millisecond):
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		var kib int
		if _, rest, ok := bytes.Cut(status, []byte("VmHWM:")); ok && bytes.HasPrefix(comm, []byte("kmsbrokerctl")) {
			if _, err := fmt.Sscan(string(rest), &kib); err == nil {
				most = max(most, kib)
			}
		}
	}
}
