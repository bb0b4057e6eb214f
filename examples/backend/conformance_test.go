package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
)

const testPIN = "correct-horse"

// The plugin is built and started as the daemon starts it, and passes the suite.
func TestConformance(t *testing.T) {
	p := newProcesses(t)
	report := conformance.Run(t.Context(), conformance.Config{
		Open:        func(ctx context.Context) (hsm.Token, error) { return p.open(ctx, []byte(testPIN)) },
		OpenWithPIN: p.open,
		Kill:        func() error { p.kill(); return nil },
		Leaks:       func(text string) bool { return strings.Contains(text, testPIN) },
		Destructive: true, // a file does not mind a wrong PIN
		Plugin:      p.command.Path, PluginSHA256: hex.EncodeToString(p.command.SHA256),
	})
	if err := report.WriteText(t.Output()); err != nil {
		t.Error(err)
	}
	if report.Verdict != conformance.VerdictPassed {
		t.Errorf("the verdict is %s", report.Verdict)
	}
	// It does one algorithm. That may be: it is not declared and is refused.
	for _, result := range report.Results {
		if strings.Contains("W-02 W-03 W-05", result.ID) != (result.Status == conformance.NotSupported) {
			t.Errorf("%s", result)
		}
	}
}

// processes starts one plugin process after another on the same file.
type processes struct {
	command plugin.Command
	file    string
	current *plugin.Process
}

func newProcesses(t *testing.T) *processes {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "backend")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	// Nobody else may be able to change the file, or the directory it is in.
	for _, name := range []string{dir, path} {
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	sockets, err := os.MkdirTemp("", "hsm") // short, because the path of a socket is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	p := &processes{file: filepath.Join(t.TempDir(), "token"), command: plugin.Command{
		Path: path, SHA256: sum[:], SocketDir: sockets, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	t.Cleanup(p.kill)
	return p
}

func (p *processes) open(ctx context.Context, pin []byte) (hsm.Token, error) {
	p.kill()
	process, err := plugin.Start(ctx, p.command)
	if err != nil {
		return nil, fmt.Errorf("start the plugin: %w", err)
	}
	p.current = process
	return process.Open(ctx, plugin.OpenConfig{Settings: map[string]string{"file": p.file}, PIN: hsm.PIN(pin)})
}

func (p *processes) kill() {
	if p.current != nil {
		p.current.Kill()
	}
}
