package main

import (
	"errors"
	"log/slog"
	"maps"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
)

func TestJournal(t *testing.T) {
	var message string
	var priority journal.Priority
	var fields map[string]string
	h := &journalHandler{level: slog.LevelInfo, send: func(m string, p journal.Priority, f map[string]string) error {
		message, priority, fields = m, p, f
		return nil
	}}
	log := slog.New(h).With("backend", "hsm")
	log.Warn("plugin gone", "error", errors.New("exit status 1"), "pid", 7, "caller", slog.GroupValue(slog.Int("uid", 1000)))
	want := map[string]string{"KMSBROKER_BACKEND": "hsm", "KMSBROKER_ERROR": "exit status 1", "KMSBROKER_PID": "7", "KMSBROKER_CALLER_UID": "1000"}
	if text := `plugin gone backend=hsm error="exit status 1" pid=7 caller.uid=1000`; message != text || priority != journal.PriWarning || !maps.Equal(fields, want) {
		t.Errorf("%q, %v, %v", message, priority, fields)
	}
	log.WithGroup("a").With("b", 1).Error("grouped", "c-d", 2)
	if message != "grouped backend=hsm a.b=1 a.c-d=2" || priority != journal.PriErr || fields["KMSBROKER_A_B"] != "1" || fields["KMSBROKER_A_C_D"] != "2" {
		t.Errorf("%q, %v, %v", message, priority, fields)
	}
	message = ""
	if log.Debug("not told"); message != "" {
		t.Error("below the level")
	}
	if slog.New(h).Info("alone"); message != "alone" || len(fields) != 0 {
		t.Errorf("%q, %v", message, fields)
	}
}
