// Package alerts has Prometheus' own tool look at what ships for it.
package alerts

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

func promtool(t *testing.T, input []byte, args ...string) {
	t.Helper()
	found, err := exec.CommandContext(t.Context(), "../promtool.sh", "../../.cache/promtool").Output()
	if err != nil {
		t.Fatalf("promtool.sh: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), strings.TrimSpace(string(found)), args...)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

// TestRules: they load, and each fires when it should and at no other time.
func TestRules(t *testing.T) {
	const folder = "../../packaging/prometheus"
	promtool(t, nil, "check", "rules", filepath.Join(folder, "kmsbroker.rules.yaml"))
	promtool(t, nil, "test", "rules", filepath.Join(folder, "kmsbroker.test.yaml"))
}

// TestExposition: what a daemon at work exposes is as Prometheus wants it.
func TestExposition(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1", "--expires", "90d")
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil)
	promtool(t, []byte(s.Metrics()), "check", "metrics")
}
