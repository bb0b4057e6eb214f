package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// boundaryVariable makes this test binary the far side of BenchmarkBoundary.
const boundaryVariable = "KMSBROKER_BENCH_FAR_SIDE"

const (
	// lanes is how many calls cross at once, each on a socket of its own.
	lanes = 8
	// workSize is how many bytes are hashed in about the time that SoftHSM takes
	// for one wrap, 0.1 ms.
	workSize = 200 << 10
	// Sizes of a wrap's request and answer in bytes.
	requestSize, answerSize = 340, 256
)

func TestMain(m *testing.M) {
	if os.Getenv(boundaryVariable) != "" {
		farSide()
		return
	}
	os.Exit(m.Run())
}

// BenchmarkBoundary is the most that any carrier can reach on this machine: as
// much computation as a wrap needs, here and in another process, with nothing in
// between but a read and a write on either side; no gRPC, no TLS, no checks. Read
// BenchmarkWrap beside it.
func BenchmarkBoundary(b *testing.B) {
	far := exec.Command(os.Args[0])
	far.Env = []string{boundaryVariable + "=1"}
	far.Stderr = os.Stderr
	free := make(chan int, lanes)
	for range lanes {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		far.ExtraFiles = append(far.ExtraFiles, os.NewFile(uintptr(pair[1]), "far side"))
		free <- pair[0]
	}
	if err := far.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = far.Process.Kill()
		_ = far.Wait()
	})
	input := make([]byte, workSize)
	for _, callers := range []int{1, lanes} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			compare(b, callers,
				side{"in-process", func(context.Context) error { compute(input); return nil }},
				side{"far-side", func(context.Context) error {
					lane := <-free
					defer func() { free <- lane }()
					return cross(lane)
				}})
		})
	}
}

func cross(lane int) error {
	buffer := make([]byte, requestSize)
	if _, err := unix.Write(lane, buffer); err != nil {
		return err
	}
	_, err := unix.Read(lane, buffer)
	return err
}

func farSide() {
	const firstLane = 3 // after the standard descriptors
	for i := range lanes {
		go func() {
			buffer, input := make([]byte, requestSize), make([]byte, workSize)
			for {
				if n, err := unix.Read(firstLane+i, buffer); n <= 0 || err != nil {
					os.Exit(0)
				}
				compute(input)
				if _, err := unix.Write(firstLane+i, buffer[:answerSize]); err != nil {
					os.Exit(0)
				}
			}
		}()
	}
	select {}
}

// compute hashes, which costs the same wherever it runs.
func compute(input []byte) { sha256.Sum256(input) }
