package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/test/application/library"
)

// farSideVariable makes this test binary the far side of openFrames.
const farSideVariable = "KMSBROKER_BENCH_FAR_SIDE"

const (
	// lanes is how many calls cross at once, each on a socket of its own.
	lanes = 8
	// Sizes of a wrap's request and answer in bytes.
	requestSize, answerSize = 340, 256
)

func TestMain(m *testing.M) {
	var err error
	switch socket := os.Getenv(neighbourVariable); {
	case os.Getenv(farSideVariable) != "":
		err = farSide()
	case socket != "":
		err = flood(socket)
	default:
		library.Main(m, pkcs11Tasks) // does not return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// order tells the far side, on its standard input, what to do for each frame.
type order struct {
	Library, Label string
	PIN            []byte
	Request        hsm.WrapRequest
}

// openFrames is about the most that any carrier can reach: the engine and the
// library in another process, behind a read and a write on either side; no gRPC,
// no TLS, no checks.
func openFrames(b *testing.B, d *device, req hsm.WrapRequest) func(context.Context) error {
	b.Helper()
	what, err := json.Marshal(order{Library: d.library, Label: d.label, PIN: []byte(d.pin), Request: req})
	if err != nil {
		b.Fatal(err)
	}
	far := exec.Command(os.Args[0])
	far.Env = append([]string{farSideVariable + "=1"}, d.env...)
	far.Stderr = os.Stderr
	stdin, err := far.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	free := make(chan *os.File, lanes)
	for range lanes {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			b.Fatal(err)
		}
		near, other := os.NewFile(uintptr(pair[0]), "near side"), os.NewFile(uintptr(pair[1]), "far side")
		b.Cleanup(func() { near.Close() })
		defer other.Close() // the far side has its own by then
		far.ExtraFiles = append(far.ExtraFiles, other)
		free <- near
	}
	if err := far.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = far.Process.Kill()
		_ = far.Wait()
	})
	if _, err := stdin.Write(what); err != nil {
		b.Fatal(err)
	}
	stdin.Close()
	return func(context.Context) error {
		lane := <-free
		defer func() { free <- lane }()
		return cross(lane)
	}
}

func cross(lane *os.File) error {
	buffer := make([]byte, requestSize)
	if _, err := lane.Write(buffer); err != nil {
		return err
	}
	n, err := lane.Read(buffer)
	if err == nil && n != answerSize {
		err = fmt.Errorf("an answer of %d bytes", n)
	}
	return err
}

// farSide wraps once for each frame, until the near side is gone.
func farSide() error {
	var what order
	if err := json.NewDecoder(os.Stdin).Decode(&what); err != nil {
		return err
	}
	token, err := pkcs11.Open(context.Background(), pkcs11.Config{Library: what.Library, TokenLabel: what.Label, PIN: hsm.PIN(what.PIN)})
	if err != nil {
		return err
	}
	ended := make(chan error, lanes)
	const firstLane = 3 // after the standard descriptors
	for i := range lanes {
		if err := unix.SetNonblock(firstLane+i, true); err != nil {
			return err
		}
		lane := os.NewFile(uintptr(firstLane+i), "lane")
		go func() { ended <- answerFrames(lane, token, what.Request) }()
	}
	return <-ended
}

func answerFrames(lane *os.File, token hsm.Token, req hsm.WrapRequest) error {
	buffer := make([]byte, requestSize)
	for {
		if _, err := lane.Read(buffer); err != nil {
			return err
		}
		blob, err := token.Wrap(context.Background(), req)
		if err != nil {
			return err
		}
		if _, err := lane.Write(blob); err != nil {
			return err
		}
	}
}
