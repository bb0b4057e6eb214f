package plugin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// modeVariable makes the test binary a plugin, or a host of one.
const modeVariable = "KMSBROKER_TEST_PLUGIN"

func TestMain(m *testing.M) {
	switch mode := os.Getenv(modeVariable); mode {
	case "":
		os.Exit(m.Run())
	case "garbage":
		fmt.Println("Welcome to the vendor library 7.2")
		time.Sleep(time.Hour)
	case "endless":
		for {
			fmt.Print(strings.Repeat("x", 1<<10))
		}
	case "version":
		fmt.Println("1|7|unix|/nowhere|grpc|certificate")
		time.Sleep(time.Hour)
	case "elsewhere":
		fmt.Println("1|1|unix|/tmp/elsewhere.sock|grpc|certificate")
		time.Sleep(time.Hour)
	case "exit":
		fmt.Fprintln(os.Stderr, "libvendor.so: cannot open shared object file")
		os.Exit(3)
	case "silent":
		time.Sleep(time.Hour)
	case "host":
		host()
	case "session client":
		sessionClient()
	case "uninitializable":
		Serve(func(ctx context.Context, req OpenRequest) (hsm.Token, error) { return openFake(ctx, mode, req) })
	default:
		Serve(func(ctx context.Context, req OpenRequest) (hsm.Token, error) { return openFake(ctx, mode, req) },
			WithTokenInitializer(fakeInitializer{mode}))
	}
}

// fakeInitializer accepts one specification alone.
type fakeInitializer struct{ mode string }

func (f fakeInitializer) InitToken(_ context.Context, spec hsm.TokenSpec) (string, error) {
	switch {
	case f.mode == "lying":
		return "", nil
	case spec.Label == "taken":
		return "", hsm.Errorf(hsm.AlreadyExists, "label %q is taken", spec.Label)
	case spec.Label == "fresh" && spec.Settings["library"] == "soft.so" && string(spec.SOPIN) == "5678" && string(spec.PIN) == "1234":
		return "0a1b", nil
	default:
		return "", hsm.Errorf(hsm.Invalid, "the specification did not arrive")
	}
}

// fake is a token whose methods do what the mode of the process says.
type fake struct {
	hsm.Token
	mode   string
	logger *slog.Logger
	closed string // file that Close makes
}

// fakeToken is the token that the fake asks a PIN for.
func fakeToken(mode string) hsm.TokenID {
	if mode == "nameless" {
		return hsm.TokenID{Manufacturer: "kmsbroker", Model: "fake"}
	}
	return hsm.TokenID{Manufacturer: "kmsbroker", Model: "fake", Serial: "0815"}
}

func openFake(ctx context.Context, mode string, req OpenRequest) (hsm.Token, error) {
	settings := ReadSettings(req.Settings)
	report := settings.String("report")
	closed := settings.String("closed")
	if err := settings.Err(); err != nil {
		return nil, err
	}
	pin, err := req.PIN(ctx, fakeToken(mode))
	if err != nil {
		return nil, err
	}
	if string(pin) != "1234" {
		return nil, &hsm.Error{Reason: hsm.PINIncorrect, Code: "CKR_PIN_INCORRECT", Detail: "log in"}
	}
	if report != "" {
		if err := os.WriteFile(report, []byte(strings.Join(os.Environ(), "\n")), 0o600); err != nil {
			return nil, err
		}
	}
	// As a C library would, behind Go's back and more than a pipe holds.
	for range 100 {
		if _, err := syscall.Write(1, []byte(strings.Repeat("banner ", 200)+"\n")); err != nil {
			return nil, err
		}
	}
	token := &fake{mode: mode, logger: req.Logger, closed: closed}
	switch mode {
	case "sessions", "lying sessions", "cramped", "slow to close":
		return deviceFake{token}, nil
	}
	return token, nil
}

func (f *fake) Describe(context.Context) (*hsm.Info, error) {
	info := &hsm.Info{Label: "fake", Role: hsm.CryptoOfficer, MaxSessions: 3,
		WrappingAlgorithms: []hsm.WrappingAlgorithm{hsm.OAEPSHA1, hsm.OAEPSHA256},
		Policies:           []hsm.Policy{{Number: 20, Name: "maximum failed user logins", Value: 10}}}
	if f.mode == "lying" {
		info.WrappingAlgorithms = append(info.WrappingAlgorithms, "ROT13")
	}
	return info, nil
}

func (f *fake) GenerateKey(_ context.Context, spec hsm.KeySpec) (*hsm.Key, error) {
	return &hsm.Key{ID: spec.ID, Label: spec.Label, Type: "AES", Bits: 256, Sensitive: true, Extractable: true, Local: true,
		Vendor: map[string]string{"OUID": "0102"}}, nil
}

func (f *fake) Key(_ context.Context, id hsm.KeyID) (*hsm.Key, error) {
	if f.mode == "lying" {
		id = hsm.NewKeyID()
	}
	return &hsm.Key{ID: id, Label: "key", Type: "0x15"}, nil
}

func (f *fake) Keys(context.Context) ([]hsm.Key, error) {
	keys := make([]hsm.Key, 1000)
	for i := range keys {
		keys[i] = hsm.Key{ID: hsm.NewKeyID(), Label: strings.Repeat("k", 255), Type: "AES", Bits: 256}
	}
	keys[500].ID = "" // made by somebody else, without a CKA_ID
	return keys, nil
}

// SealKey returns the key as it is when the plugin lies.
func (f *fake) SealKey(_ context.Context, id hsm.KeyID) (*hsm.Key, error) {
	return &hsm.Key{ID: id, Label: "sealed", Type: "AES", Bits: 256, Extractable: f.mode == "lying"}, nil
}

// DestroyKey fails with the reason whose number the ID is.
func (f *fake) DestroyKey(_ context.Context, id hsm.KeyID) error {
	reason := hsm.Reasons()[id.Bytes()[0]]
	return &hsm.Error{Reason: reason, Code: "CKR_" + string(reason), Detail: "destroy key " + string(id)}
}

func (f *fake) Wrap(context.Context, hsm.WrapRequest) ([]byte, error) {
	if f.mode == "lying" {
		return make([]byte, 255), nil
	}
	return make([]byte, 256), nil
}

func (f *fake) CheckValue(context.Context, hsm.KeyID) (hsm.CheckValue, error) {
	return hsm.CheckValue{1, 2, 3}, nil
}

func (f *fake) Health(context.Context) error {
	switch f.mode {
	case "crash":
		if err := unix.Kill(os.Getpid(), unix.SIGSEGV); err != nil {
			return err
		}
		select {}
	case "hang":
		select {} // a C library does not know about contexts
	case "panic":
		var secret any = "the secret of the panic"
		panic(secret)
	case "logs":
		f.logger.Error("device complains", "error", errors.New("low battery"), "slot", 3)
		fmt.Fprintln(os.Stderr, "lost: go-plugin has replaced os.Stderr")
	}
	return nil
}

func (f *fake) Close(context.Context) error {
	if f.mode == "stuck" {
		select {} // a logout that never returns
	}
	if f.closed == "" {
		return nil
	}
	return os.WriteFile(f.closed, nil, 0o600)
}

// newCommand makes the command that starts the test binary as a plugin.
func newCommand(t testing.TB, mode string) Command {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Command{
		Path:      self,
		SHA256:    checksum(t, self),
		Env:       []string{modeVariable + "=" + mode},
		SocketDir: socketDir(t),
		Logger:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// socketDir makes a directory whose path is short enough for sockets.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hsm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func checksum(t testing.TB, path string) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		t.Fatal(err)
	}
	return hash.Sum(nil)
}

func start(t *testing.T, command Command) *Process {
	t.Helper()
	process, err := Start(t.Context(), command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)
	return process
}

// open starts the test binary as a plugin and opens its token.
func open(t *testing.T, mode string) (*Process, hsm.Token) {
	t.Helper()
	process := start(t, newCommand(t, mode))
	token, err := process.Open(t.Context(), OpenConfig{PIN: hsm.PIN([]byte("1234"))})
	if err != nil {
		t.Fatal(err)
	}
	return process, token
}

func wantReason(t *testing.T, err error, want hsm.Reason) {
	t.Helper()
	e, ok := errors.AsType[*hsm.Error](err)
	if !ok {
		t.Fatalf("got error %v (%T), want an *hsm.Error with reason %s", err, err, want)
	}
	if e.Reason != want {
		t.Fatalf("got reason %s (%v), want %s", e.Reason, err, want)
	}
	t.Logf("as expected: %v", err)
}

// host starts a plugin, says its number and waits to be killed.
func host() {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(content)
	process, err := Start(context.Background(), Command{
		Path: self, SHA256: sum[:], Env: []string{modeVariable + "=good"}, SocketDir: os.Getenv("SOCKET_DIR"),
	})
	if err != nil {
		panic(err)
	}
	_, err = process.Open(context.Background(), OpenConfig{
		Settings: map[string]string{"closed": filepath.Join(os.Getenv("SOCKET_DIR"), "closed")}, PIN: hsm.PIN([]byte("1234")),
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(process.PID())
	time.Sleep(time.Hour)
}
