package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// newLog writes to the journal with fields where systemd listens, and elsewhere as text.
func newLog(stderr io.Writer, level slog.Level) *slog.Logger {
	if listens, err := journal.StderrIsJournalStream(); err == nil && listens && journal.Enabled() {
		return slog.New(&journalHandler{level: level, send: journal.Send})
	}
	return slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
}

// journalHandler sends each record with its attributes as text behind the message, for
// people, and as fields KMSBROKER_NAME, for `journalctl KMSBROKER_BACKEND=hsm`.
type journalHandler struct {
	level  slog.Level
	send   func(message string, priority journal.Priority, fields map[string]string) error
	attrs  []slog.Attr // with the groups they are in as prefixes of their names
	prefix string
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		a.Key = h.prefix + a.Key
		more.attrs = append(more.attrs, a)
	}
	return &more
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	more := *h
	more.prefix = h.prefix + name + "."
	return &more
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	all := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		a.Key = h.prefix + a.Key
		all = append(all, a)
		return true
	})
	fields := map[string]string{}
	for _, a := range all {
		addField(fields, a)
	}
	return h.send(r.Message+text(ctx, all), priorityOf(r.Level), fields)
}

// text writes attributes as slog does.
func text(ctx context.Context, attrs []slog.Attr) string {
	if len(attrs) == 0 {
		return ""
	}
	var b bytes.Buffer
	handler := slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}})
	record := slog.Record{}
	record.AddAttrs(attrs...)
	if handler.Handle(ctx, record) != nil { // a buffer takes everything
		return ""
	}
	return " " + strings.TrimSpace(b.String())
}

func addField(fields map[string]string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		for _, member := range value.Group() {
			member.Key = a.Key + "_" + member.Key
			addField(fields, member)
		}
		return
	}
	// journald drops what is not of A-Z, 0-9 and _.
	name := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(a.Key))
	fields["KMSBROKER_"+name] = value.String()
}

func priorityOf(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	default:
		return journal.PriDebug
	}
}
