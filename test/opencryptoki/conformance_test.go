//go:build root

package opencryptoki

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestConformance makes every check that there is, also the destructive ones.
// There is nothing among them that the device cannot do, so that all have to
// pass: none may be without support, and none not made.
func TestConformance(t *testing.T) {
	d := newDevice(t)
	o := newOne(t, d)
	defer o.kill()
	report := conformance.Run(t.Context(), conformance.Config{
		Open:        func(ctx context.Context) (hsm.Token, error) { return o.open(ctx, []byte(userPIN)) },
		OpenWithPIN: o.open,
		Kill:        func() error { o.kill(); return nil },
		Plant: func(_ context.Context, id hsm.KeyID) error {
			_, err := d.runTool(string(id))
			return err
		},
		Objects: func(context.Context) (int, error) {
			out, err := d.runTool("count")
			if err != nil {
				return 0, err
			}
			return strconv.Atoi(out)
		},
		Leaks:       leaks,
		Asked:       func() hsm.TokenID { return o.asked },
		Exposed:     o.exposed,
		Destructive: true,
		Plugin:      o.command.Path,
	})
	for _, result := range report.Results {
		if result.Status != conformance.Passed {
			t.Error(result)
		}
	}
	if report.Verdict != conformance.VerdictPassed || len(report.LeftBehind) > 0 {
		t.Errorf("verdict %s, left behind %v", report.Verdict, report.LeftBehind)
	}
	if out, err := d.runTool("count"); err != nil || out != "0" {
		t.Errorf("%s objects are left on the token, %v", out, err)
	}
	d.wantCount(0)
	t.Logf("%+v", report.Totals)
}

func leaks(text string) bool { return strings.Contains(text, userPIN) }

// one holds the one plugin process that the suite has at a time.
type one struct {
	command plugin.Command
	config  plugin.OpenConfig
	log     *log
	process *plugin.Process // nil when there is none
	asked   hsm.TokenID     // what the last process wanted the PIN for
}

func newOne(t *testing.T, d *device) *one {
	t.Helper()
	sockets, err := os.MkdirTemp("", "kb") // short, because the path of a socket is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	path := filepath.Join(stage.Binaries(t), "plugins", "softhsm")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	log := &log{next: t.Output()}
	return &one{
		command: plugin.Command{
			Path: path, SHA256: sum[:], SocketDir: sockets,
			Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		},
		config: plugin.OpenConfig{Settings: map[string]string{"library": d.library, "token_label": tokenLabel}},
		log:    log,
	}
}

func (o *one) open(ctx context.Context, pin []byte) (hsm.Token, error) {
	o.kill()
	process, err := plugin.Start(ctx, o.command)
	if err != nil {
		return nil, err
	}
	o.process = process
	config := o.config
	config.PIN = func(ctx context.Context, token hsm.TokenID) ([]byte, error) {
		o.asked = token
		return hsm.PIN(pin)(ctx, token)
	}
	return process.Open(ctx, config)
}

func (o *one) kill() {
	if o.process != nil {
		o.process.Kill()
		o.process = nil
	}
}

// exposed looks where others could see the PIN; root sees it all.
func (o *one) exposed() (looked, found []string, err error) {
	for _, place := range []string{"log", "cmdline", "environ"} {
		text := o.log.String()
		if place != "log" {
			content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", o.process.PID(), place))
			if err != nil {
				return nil, nil, err
			}
			text = string(content)
		}
		looked = append(looked, place)
		if leaks(text) {
			found = append(found, place)
		}
	}
	return looked, found, nil
}

// log keeps what the plugin logs.
type log struct {
	next io.Writer
	mu   sync.Mutex
	data bytes.Buffer
}

// Write implements io.Writer.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data.Write(p)
	return l.next.Write(p)
}

// String returns all that was written.
func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.String()
}
