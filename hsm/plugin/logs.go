package plugin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// The form of hclog's JSON, which is what go-plugin expects on standard error.
const (
	logTime    = "@timestamp"
	logLevel   = "@level"
	logMessage = "@message"
	logLayout  = "2006-01-02T15:04:05.000000Z07:00"
)

// newLogHandler writes log records as hclog does. The daemon filters by level.
func newLogHandler(w io.Writer) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			switch a.Key {
			case slog.TimeKey:
				return slog.String(logTime, a.Value.Time().Format(logLayout))
			case slog.LevelKey:
				return slog.String(logLevel, strings.ToLower(a.Value.String()))
			case slog.MessageKey:
				return slog.String(logMessage, a.Value.String())
			}
			return a
		},
	})
}

// Bounds of one log line of a plugin.
const (
	maxLogLine   = 16 << 10
	maxLogFields = 24
)

// relay copies log lines from r to logger until r ends, and hands each to seen.
func relay(r io.Reader, logger *slog.Logger, seen func(line logLine)) {
	lines := bufio.NewReaderSize(r, maxLogLine)
	for {
		raw, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			raw = slices.Clone(raw)
			err = skipLine(lines)
		}
		if len(raw) > 0 {
			line := parseLogLine(raw)
			seen(line)
			logger.LogAttrs(context.Background(), line.level, line.message, line.fields...)
		}
		if err != nil {
			return
		}
	}
}

func skipLine(r *bufio.Reader) error {
	for {
		_, err := r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// logLine is one line of a plugin's standard error.
type logLine struct {
	level   slog.Level
	message string
	fields  []slog.Attr
}

// parseLogLine reads a line of hclog's JSON. Anything else, such as the trace
// of a crash or the words of a vendor library, becomes a warning.
func parseLogLine(raw []byte) logLine {
	var object map[string]any
	err := json.Unmarshal(raw, &object)
	message, ok := object[logMessage].(string)
	if err != nil || !ok {
		words := text(strings.TrimRight(string(raw), "\r\n"), maxDetail)
		return logLine{slog.LevelWarn, "plugin wrote to standard error", []slog.Attr{slog.String("line", words)}}
	}
	line := logLine{levelOf(object[logLevel]), text(message, maxString), nil}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if name == logMessage || name == logLevel || name == logTime || len(line.fields) == maxLogFields {
			continue
		}
		line.fields = append(line.fields, slog.String(text(name, maxCode), text(flat(object[name]), maxDetail)))
	}
	return line
}

func flat(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprintf("%T", value)
	}
	return string(encoded)
}

func levelOf(value any) slog.Level {
	switch value {
	case "trace", "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// String is the line in one piece, for an error.
func (l logLine) String() string {
	parts := []string{l.message}
	for _, field := range l.fields {
		parts = append(parts, field.Key+"="+field.Value.String())
	}
	return text(strings.Join(parts, " "), maxDetail/2)
}
