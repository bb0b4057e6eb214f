package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// checked is the one process that the suite has at a time, and whoever looks
// for the PIN in what the processes show.
type checked struct {
	config  PluginConfig
	process Process
	pin     []byte
	asked   hsm.TokenID // by the last process that logged in
	logged  atomic.Bool // the PIN was
}

func newChecked(config PluginConfig, pin []byte) *checked {
	c := &checked{config: config, pin: pin}
	c.config.Asked = func(token hsm.TokenID) { c.asked = token }
	c.config.Log = slog.New(&logWatch{next: config.Log.Handler(), leaks: c.leaks, leaked: &c.logged})
	return c
}

func (c *checked) open(ctx context.Context, launch Launch) (hsm.Token, error) {
	c.kill()
	process, err := launch(ctx)
	if err != nil {
		return nil, err
	}
	c.process = process
	return process.Token(), nil
}

func (c *checked) kill() {
	if c.process != nil {
		c.process.Kill()
		c.process = nil
	}
}

// distinctive is the length of a PIN, in bytes, from which on no text contains it
// by accident. A shorter one may be a part of some number or ID.
const distinctive = 8

// leaks reports whether text contains the PIN; a short one only as a word of its
// own.
func (c *checked) leaks(text string) bool {
	pin := string(c.pin)
	for at := 0; ; at++ {
		next := strings.Index(text[at:], pin)
		if next < 0 {
			return false
		}
		at += next
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, _ := utf8.DecodeRuneInString(text[at+len(pin):])
		if len(pin) >= distinctive || !isWord(before) && !isWord(after) {
			return true
		}
	}
}

func isWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// exposed implements conformance.Config.Exposed. The environment is that of
// /proc if the kernel shows it to this user; a plugin that hides it from its own
// user hides it from everybody but root, and is judged by what it was started
// with.
func (c *checked) exposed() (looked, found []string, err error) {
	if c.process == nil {
		return nil, nil, hsm.Errorf(hsm.TokenGone, "the plugin process has ended")
	}
	arguments, err := processFile(c.process.PID(), "cmdline")
	if err != nil {
		return nil, nil, err
	}
	environment, err := processFile(c.process.PID(), "environ")
	if errors.Is(err, fs.ErrPermission) {
		environment, err = strings.Join(c.config.Environment, "\n"), nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, place := range []struct {
		name string
		pin  bool
	}{
		{"log", c.logged.Load()},
		{"arguments", c.leaks(arguments)},
		{"environment", c.leaks(environment)},
	} {
		looked = append(looked, place.name)
		if place.pin {
			found = append(found, place.name)
		}
	}
	return looked, found, nil
}

// processFile reads a file of proc(5) that lists strings.
func processFile(pid int, name string) (string, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	return string(bytes.ReplaceAll(content, []byte{0}, []byte("\n"))), err
}

// logWatch keeps the PIN out of the daemon's log, and notes that it was on its
// way there. It looks at every level, also at those that are not written.
type logWatch struct {
	next   slog.Handler
	leaks  func(text string) bool
	leaked *atomic.Bool
}

// Enabled implements [slog.Handler].
func (w *logWatch) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (w *logWatch) Handle(ctx context.Context, record slog.Record) error {
	leaks := w.leaks(record.Message)
	record.Attrs(func(a slog.Attr) bool {
		leaks = leaks || w.leaks(a.Key) || w.leaks(a.Value.String())
		return !leaks
	})
	if leaks {
		w.leaked.Store(true)
		record = slog.NewRecord(record.Time, slog.LevelError, "a line of the plugin's log contains the PIN and is withheld", 0)
	}
	if !w.next.Enabled(ctx, record.Level) {
		return nil
	}
	return w.next.Handle(ctx, record)
}

// WithAttrs implements [slog.Handler].
func (w *logWatch) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logWatch{w.next.WithAttrs(attrs), w.leaks, w.leaked}
}

// WithGroup implements [slog.Handler].
func (w *logWatch) WithGroup(name string) slog.Handler {
	return &logWatch{w.next.WithGroup(name), w.leaks, w.leaked}
}
