package devices

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
)

// examiner gives the conformance suite all that it can make use of: its plugin
// processes, one at a time, and a look at the device past them.
type examiner struct {
	device  *device
	plugin  backend.PluginConfig
	pin     string
	process one
	asked   hsm.TokenID // what the last process wanted the PIN for
	log     log
}

func newExaminer(t *testing.T, d *device, pin string) *examiner {
	t.Helper()
	e := &examiner{device: d, plugin: d.config, pin: pin}
	e.plugin.Asked = func(token hsm.TokenID) { e.asked = token }
	e.plugin.Log = slog.New(slog.NewTextHandler(&e.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	t.Cleanup(e.process.kill)
	return e
}

func (e *examiner) config() conformance.Config {
	return conformance.Config{
		Open: func(ctx context.Context) (hsm.Token, error) { return e.open(ctx, backend.LaunchPlugin(e.plugin)) },
		OpenWithPIN: func(ctx context.Context, pin []byte) (hsm.Token, error) {
			return e.open(ctx, backend.LaunchPluginWith(e.plugin, pin))
		},
		Kill:        func() error { e.process.kill(); return nil },
		Objects:     func(context.Context) (int, error) { return len(e.device.Stored()), nil },
		Leaks:       e.leaks,
		Asked:       func() hsm.TokenID { return e.asked },
		Exposed:     e.exposed,
		Destructive: true,
		Plugin:      e.plugin.Plugin,
	}
}

func (e *examiner) open(ctx context.Context, launch backend.Launch) (hsm.Token, error) {
	e.process.kill()
	e.process.launch = launch
	return e.process.open(ctx)
}

func (e *examiner) leaks(text string) bool { return strings.Contains(text, e.pin) }

// exposed looks where others could see the PIN.
func (e *examiner) exposed() (looked, found []string, err error) {
	for _, place := range []string{"log", "cmdline", "environ"} {
		text := e.log.String()
		if place != "log" {
			if text, err = e.processFile(place); err != nil {
				return nil, nil, err
			}
		}
		looked = append(looked, place)
		if e.leaks(text) {
			found = append(found, place)
		}
	}
	return looked, found, nil
}

// processFile reads a file of proc(5). A process that hides its environment from
// its own user is judged by what it was started with.
func (e *examiner) processFile(name string) (string, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", e.process.process.PID(), name))
	if errors.Is(err, fs.ErrPermission) {
		return strings.Join(e.plugin.Environment, "\n"), nil
	}
	return string(content), err
}

// log keeps what plugins log.
type log struct {
	mu   sync.Mutex
	data bytes.Buffer
}

// Write implements io.Writer.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.Write(p)
}

// String returns all that was written.
func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.String()
}
