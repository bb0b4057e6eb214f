package audit

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func searched(t *testing.T, dir string, f Filter) []uint64 {
	t.Helper()
	var found []uint64
	if err := Search(dir, f, func(e Entry) error { found = append(found, e.Seq); return nil }); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestSearch(t *testing.T) {
	dir := filepath.Join("testdata", "format")
	uid, root, nobody := uint32(1000), uint32(0), uint32(65534)
	since := time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC)
	tests := []struct {
		name   string
		filter Filter
		want   []uint64
	}{
		{"key", Filter{Key: "payments"}, []uint64{3, 4, 10, 11}},
		{"key pattern", Filter{Key: "pay*"}, []uint64{3, 4, 10, 11}},
		{"action", Filter{Action: "decrypt"}, []uint64{4, 11}},
		{"action pattern", Filter{Action: "audit.*"}, []uint64{1, 7, 8, 12, 13}},
		{"uid", Filter{UID: &uid}, []uint64{4, 11}},
		{"uid 0", Filter{UID: &root}, []uint64{3, 10}},
		{"unknown uid", Filter{UID: &nobody}, nil},
		{"since", Filter{Since: since, Key: "payments"}, []uint64{10, 11}},
	}
	for _, tt := range tests {
		if got := searched(t, dir, tt.filter); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if err := (&Filter{Key: "["}).Check(); err == nil {
		t.Error("a pattern that is none was accepted")
	}
}

// TestApplications: of an application there is its name alone, nothing that reads
// as root's, and it is found by that.
func TestApplications(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	sample(t, dir, []Event{
		{Action: "encrypt", Outcome: Done, Caller: &Caller{App: "web-1", UID: 7}, Application: true},
		{Action: "encrypt", Outcome: Done, Caller: &Caller{}, Application: true},
		{Action: "summary", Outcome: Denied, Details: map[string]string{DetailApp: "web-2"}},
	})
	root := uint32(0)
	for name, test := range map[string]struct {
		filter Filter
		want   []uint64
	}{
		"name": {Filter{App: "web-1"}, []uint64{2, 7, 10}}, "pattern": {Filter{App: "web-*"}, []uint64{2, 4, 7, 10}},
		"any": {Filter{App: "*"}, []uint64{2, 4, 7, 10}}, "root": {Filter{UID: &root}, []uint64{3}}, "both": {Filter{UID: &root, App: "*"}, nil},
	} {
		if got := searched(t, dir, test.filter); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	err := Search(dir, Filter{App: "web-1"}, func(e Entry) error {
		if !strings.Contains(string(e.Line), `"caller":{"app":"web-1"}`) {
			t.Errorf("%s", e.Line)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := Verify(dir, VerifyOptions{}); err != nil {
		t.Error(err)
	}
}

// TestSearchInDamage: a bad line hides no other.
func TestSearchInDamage(t *testing.T) {
	dir := t.TempDir()
	for _, path := range paths(t, filepath.Join("testdata", "format")) {
		content := strings.Replace(string(readFile(t, path)), `"action":"daemon.start"`, `"action":`, 1)
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var found []uint64
	err := Search(dir, Filter{Key: "payments"}, func(e Entry) error { found = append(found, e.Seq); return nil })
	if err == nil || !strings.Contains(err.Error(), "line 2") || !slices.Equal(found, []uint64{3, 4, 10, 11}) {
		t.Errorf("got %v, %v", found, err)
	}
}

// TestTail follows a trail through its rotations.
func TestTail(t *testing.T) {
	o := options(t.TempDir())
	o.SegmentSize = 2000
	l := open(t, o)
	appendEvents(t, l, 30)
	want := l.Head().Seq
	for n := range uint64(40) {
		var got []uint64
		if err := Tail(t.Context(), o.Dir, int(n), false, func(e Entry) error { got = append(got, e.Seq); return nil }); err != nil {
			t.Fatal(err)
		}
		if n = min(n, want); uint64(len(got)) != n || n > 0 && (got[0] != want-n+1 || got[n-1] != want) {
			t.Errorf("the last %d of %d: %v", n, want, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan uint64, 1000), make(chan error)
	go func() {
		done <- Tail(ctx, o.Dir, 1, true, func(e Entry) error { seen <- e.Seq; return nil })
	}()
	if first := <-seen; first != want {
		t.Errorf("began with %d, not %d", first, want)
	}
	appendEvents(t, l, 30)
	for last := l.Head().Seq; want < last; {
		want++
		if got := <-seen; got != want {
			t.Fatalf("got %d, want %d", got, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
