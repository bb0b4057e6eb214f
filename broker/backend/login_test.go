package backend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/hsmtest"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
)

// modeVariable makes the test binary a plugin that does with its PIN what the
// variable says, after noting in a file that it got one.
const modeVariable = "KMSBROKER_BACKEND_TEST"

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeVariable); mode != "" {
		plugin.Serve(func(ctx context.Context, req plugin.OpenRequest) (hsm.Token, error) {
			return logIn(ctx, mode, req)
		})
		return
	}
	os.Exit(m.Run())
}

func logIn(ctx context.Context, mode string, req plugin.OpenRequest) (hsm.Token, error) {
	if mode == "absent" {
		return nil, hsm.Errorf(hsm.TokenGone, "the HSM cannot be reached")
	}
	pin, err := req.PIN(ctx, hsm.TokenID{Manufacturer: "kmsbroker", Model: "test", Serial: "0815"})
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(req.Settings["attempts"], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Write(append(pin, '\n')); err != nil {
		return nil, err
	}
	switch mode {
	case "crash":
		os.Exit(1)
	case "babble":
		req.Logger.Debug("logging in", "with", string(pin))
	case "odd":
		return nil, &hsm.Error{Reason: hsm.Internal, Code: "0x80000999", Detail: "log in"}
	case "lost":
		return nil, &hsm.Error{Reason: hsm.TokenGone, Code: "CKR_DEVICE_ERROR", Detail: "log in"}
	case "wrong":
		return nil, &hsm.Error{Reason: hsm.PINIncorrect, Code: "CKR_PIN_INCORRECT", Detail: "log in"}
	}
	return hsmtest.New(), nil
}

// TestLoginsAreCounted starts real plugin processes and counts the PINs that
// they get, over several lives of the daemon.
func TestLoginsAreCounted(t *testing.T) {
	tests := []struct {
		mode     string
		attempts int // after which the backend is blocked
		reason   hsm.Reason
	}{
		{"wrong", 1, hsm.PINIncorrect},
		{"crash", 2, hsm.LoginUnclear},
		{"odd", 2, hsm.LoginUnclear},
		{"lost", 2, hsm.LoginUnclear},
	}
	for _, tt := range tests {
		t.Run(tt.mode, func(t *testing.T) {
			dir := t.TempDir()
			for life := range 2 {
				b, attempts := live(t, dir, tt.mode, "hsm")
				awaitBlocked(t, b)
				if err := b.Token().Health(t.Context()); !errors.Is(err, tt.reason) {
					t.Errorf("life %d: %v, want %s", life, err, tt.reason)
				}
				if got := attempts(); got != tt.attempts {
					t.Errorf("life %d: %d PINs were sent, want %d", life, got, tt.attempts)
				}
				b.stop()
			}
			// Another name changes nothing: it is the token that counts.
			b, attempts := live(t, dir, tt.mode, "renamed")
			awaitBlocked(t, b)
			if err := b.Token().Health(t.Context()); !errors.Is(err, tt.reason) || !strings.Contains(err.Error(), `by backend "hsm"`) {
				t.Errorf("renamed: %v, want %s and who it was", err, tt.reason)
			}
			if got := attempts(); got != tt.attempts {
				t.Errorf("renamed: %d PINs were sent, want %d", got, tt.attempts)
			}
			if err := b.RetryLogin(); err != nil {
				t.Fatal(err)
			}
			awaitBlocked(t, b)
			if got := attempts(); got != 2*tt.attempts {
				t.Errorf("after retry-login: %d PINs were sent, want %d", got, 2*tt.attempts)
			}
			b.stop()
		})
	}
}

// TestAbsentTokenCostsNoLogin: what fails before the login is not counted, and
// does not block however often it happens.
func TestAbsentTokenCostsNoLogin(t *testing.T) {
	b, attempts := live(t, t.TempDir(), "absent", "hsm")
	b.awaitAttempts(4)
	if s := b.Status(); s.State == Blocked || attempts() != 0 {
		t.Errorf("state %s, %d PINs were sent", s.State, attempts())
	}
	b.stop()
}

func TestGoodLoginIsForgotten(t *testing.T) {
	dir := t.TempDir()
	for range 4 {
		b, _ := live(t, dir, "good", "hsm")
		if err := b.Token().Health(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.stop()
	}
}

// alive is a backend with real plugin processes.
type alive struct {
	*Backend
	t        *testing.T
	stop     func()
	launched chan struct{}
}

// live runs a backend on the registry in dir. attempts counts the PINs sent. The
// PIN is in a file, unless the name is that of a backend whose PIN is entered.
func live(t *testing.T, dir, mode, name string) (b *alive, attempts func() int) {
	t.Helper()
	logins, err := keyring.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	path, sum := pluginBinary(t)
	sockets, err := os.MkdirTemp("", "kb")
	if err != nil {
		t.Fatal(err)
	}
	pin, noted := filepath.Join(dir, "pin"), filepath.Join(dir, "attempts")
	if err := os.WriteFile(pin, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	var prompted *PromptedPIN
	if name == "prompted" {
		prompted = NewPromptedPIN()
	}
	launch := LaunchPlugin(PluginConfig{
		Plugin: path, SHA256: sum, Environment: []string{modeVariable + "=" + mode}, SocketDir: sockets,
		Settings: map[string]string{"attempts": noted}, PINFile: pin, Log: slog.New(slog.DiscardHandler),
		Backend: name, Logins: logins, Prompted: prompted,
	})
	b = &alive{t: t, launched: make(chan struct{}, 1000)}
	b.Backend = New(Config{
		Name: name, Prompted: prompted, Logins: logins, CallTimeout: callTimeout, Log: slog.New(slog.DiscardHandler), Changed: func(Status) {},
		Launch: func(ctx context.Context) (Process, error) {
			defer func() { b.launched <- struct{}{} }()
			return launch(ctx)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	b.stop = func() {
		cancel()
		<-done
		os.RemoveAll(sockets)
		if err := logins.Close(); err != nil {
			t.Error(err)
		}
	}
	return b, func() int {
		content, err := os.ReadFile(noted)
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		return strings.Count(string(content), "1234\n")
	}
}

func awaitBlocked(t *testing.T, b *alive) {
	t.Helper()
	b.await(Blocked)
}

func (b *alive) await(want State) {
	b.t.Helper()
	for {
		b.mu.Lock()
		state, changed := b.status.State, b.changed
		b.mu.Unlock()
		if state == want {
			return
		}
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			b.t.Fatalf("not %s: %+v", want, b.Status())
		}
	}
}

// awaitAttempts returns when n processes were started.
func (b *alive) awaitAttempts(n int) {
	b.t.Helper()
	for range n {
		select {
		case <-b.launched:
		case <-time.After(30 * time.Second):
			b.t.Fatal("no further process was started")
		}
	}
}

// pluginBinary copies the test binary to where nobody else can write, whatever
// the umask was, and returns its checksum.
func pluginBinary(t *testing.T) (path, sum string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path = filepath.Join(dir, "plugin")
	if err := errors.Join(os.WriteFile(path, content, 0o700), os.Chmod(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(content)
	return path, hex.EncodeToString(hash[:])
}
