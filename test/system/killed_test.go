package system

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestKilledUnderLoad: wherever SIGKILL meets a daemon that applications keep busy,
// the trail can be verified against the last head that was told, and has every change
// that an administrator was told of.
func TestKilledUnderLoad(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	var told []string // changes that were acknowledged
	for life := range 5 {
		ctx, stop := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for range 8 {
			app, err := client.New(s.Application())
			if err != nil {
				t.Fatal(err)
			}
			callers.Go(func() {
				defer app.Close()
				for ctx.Err() == nil {
					_, _ = app.Encrypt(ctx, "app-1", []byte("x"), nil) // it dies at some point
				}
			})
		}
		for i := range 3 {
			text := fmt.Sprintf("change %d of life %d", i, life)
			s.Must(s.Ctl(s.Control(), "key", "set-description", "app-1", text), nil)
			told = append(told, text)
		}
		daemon.Kill()
		stop()
		callers.Wait()
		anchor := lastHead(t, daemon.Log.String())
		s.Must(s.Ctl("", "audit", "verify", "--dir", s.Path("state/audit"), "--anchor", anchor), nil)
		if n := strings.Count(s.AuditTrail(), `"action":"key.describe","outcome":"done"`); n < len(told) {
			t.Errorf("life %d: %d of %d acknowledged changes are on record", life, n, len(told))
		}
		daemon = s.Start()
	}
}

// lastHead is the last one that a daemon's log has.
func lastHead(t *testing.T, log string) string {
	t.Helper()
	at := strings.LastIndex(log, "head=")
	if at < 0 {
		t.Fatalf("the log tells no head:\n%s", log)
	}
	head, _, _ := strings.Cut(log[at+len("head="):], "\n")
	return strings.TrimSpace(head)
}
