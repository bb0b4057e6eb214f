// Package alerts has Prometheus' own tool look at what ships for it.
package alerts

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
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
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.Path("run/metrics.sock"))
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, text, "check", "metrics")
}
