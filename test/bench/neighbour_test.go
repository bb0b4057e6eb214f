package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// neighbourVariable makes this test binary a user who floods the socket that it
// names.
const neighbourVariable = "KMSBROKER_BENCH_NEIGHBOUR"

const (
	neighbour   = 65534
	floodCalls  = 128
	floodConns  = 4
	neighbourly = 5 * time.Millisecond // between the calls of the one who is measured
)

// BenchmarkNeighbour tells what another user's flood costs one who calls now and then,
// under the quota of an account. The flood also takes processor time from everybody,
// which "busy" shows. It needs root, to be two users.
func BenchmarkNeighbour(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("two users are needed: run it as root")
	}
	emu := startEmulator(b)
	emu.delay(b, 5*time.Millisecond)
	s := stage.New(b, stage.Options{Endpoint: emu.url})
	s.Write("kmsbrokerd.toml", s.Read("kmsbrokerd.toml")+fmt.Sprintf(`
[[grant]]
keys       = ["app-1"]
operations = ["encrypt"]
users      = [%d]
`, neighbour), 0o644)
	if err := os.Chmod(s.Dir, 0o755); err != nil {
		b.Fatal(err)
	}
	s.Start()
	s.Import("app-1")
	c, err := client.New(s.Application())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	quiet := side{"quiet", func(ctx context.Context) error {
		_, err := c.Encrypt(ctx, "app-1", plaintext, nil)
		return err
	}}
	flooder := startFlood(b, s.Application())
	var alone, beside, ratios, busy []float64
	for round := range rounds + 1 {
		signal(b, flooder, unix.SIGSTOP)
		a := latency(b, quiet, neighbourly)
		signal(b, flooder, unix.SIGCONT)
		before := readProcessors(b)
		z := latency(b, quiet, neighbourly)
		if round > 0 { // the first warms up
			alone, beside, ratios = append(alone, a), append(beside, z), append(ratios, z/a)
			busy = append(busy, readProcessors(b).busySince(before))
		}
	}
	b.ReportMetric(median(alone), "alone-us")
	b.ReportMetric(median(beside), "beside-us")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(busy), "busy")
	b.ReportMetric(0, "ns/op")
}

// startFlood starts the neighbour. The binary is copied to where he can read it.
func startFlood(b *testing.B, socket string) int {
	b.Helper()
	program := b.TempDir() + "/neighbour"
	if out, err := exec.Command("cp", os.Args[0], program).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	file, err := os.Open(program)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{file}
	cmd.Env = []string{neighbourVariable + "=" + socket}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: neighbour, Gid: neighbour}}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func signal(b *testing.B, pid int, s unix.Signal) {
	b.Helper()
	if err := unix.Kill(pid, s); err != nil {
		b.Fatal(err)
	}
}

// flood calls without end.
func flood(socket string) error {
	var callers sync.WaitGroup
	for range floodConns {
		c, err := client.New(socket)
		if err != nil {
			return err
		}
		for range floodCalls / floodConns {
			callers.Go(func() {
				for {
					_, _ = c.Encrypt(context.Background(), "app-1", plaintext, nil) // refusals are what a flood gets
				}
			})
		}
	}
	callers.Wait()
	return nil
}
