package audit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimVariable); dir != "" {
		victim(dir)
	}
	goleak.VerifyTestMain(m)
}

var update = flag.Bool("update", false, "write the golden files")

// registry keeps a head in memory.
type registry struct {
	mu   sync.Mutex
	head Head
}

func (r *registry) AuditHead() (Head, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head, nil
}

func (r *registry) SetAuditHead(h Head) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.head = h
	return nil
}

// seeds is a source of keys that are always the same.
type seeds struct{ n int }

func (s *seeds) Read(p []byte) (int, error) {
	s.n++
	sum := sha256.Sum256(fmt.Appendf(nil, "seed %d", s.n))
	return copy(p, sum[:]), nil
}

func options(dir string) Options {
	return Options{
		Dir: dir, Registry: &registry{}, Logger: slog.New(slog.DiscardHandler),
		CommitDelay: time.Millisecond, SegmentSize: 1 << 20, SegmentAge: 24 * time.Hour, Reserve: 1 << 20,
	}
}

func open(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func closed(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// paths are the segments of a trail.
func paths(t testing.TB, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "audit-*.log"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// read returns all segments of a trail.
func read(t testing.TB, dir string) []byte {
	t.Helper()
	var all []byte
	for _, path := range paths(t, dir) {
		all = append(all, readFile(t, path)...)
	}
	return all
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func event(n int) Event {
	return Event{Action: "key.enable", Outcome: Allowed, Key: fmt.Sprintf("key-%d", n)}
}

func use(n int) Event {
	return Event{Action: "decrypt", Outcome: Done, Key: fmt.Sprintf("key-%d", n), Application: true}
}

func appendEvents(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(t.Context(), event(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// mustVerify checks the trail of l against its head and returns the summary.
func mustVerify(t testing.TB, l *Log) Summary {
	t.Helper()
	s, err := Verify(l.Dir, VerifyOptions{Anchors: []Head{l.Head()}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Head != l.Head() || s.Records != s.Head.Seq || s.Torn != 0 {
		t.Fatalf("head %v, summary %+v", l.Head(), s)
	}
	return s
}

// sample writes a trail of three epochs, always the same, and returns its head. The
// second and the third have fewer of the events.
func sample(t testing.TB, dir string, events []Event) (head Head) {
	synctest.Test(t.(*testing.T), func(t *testing.T) {
		o := options(dir)
		o.random, o.SegmentAge = &seeds{}, time.Hour
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		for epoch := range 3 {
			for i, e := range events[:max(1, len(events)-2*epoch)] {
				time.Sleep(time.Second + time.Millisecond)
				if err := l.Append(t.Context(), e); err != nil {
					t.Fatalf("event %d: %v", i, err)
				}
			}
			if epoch < 2 {
				time.Sleep(time.Hour)
			}
		}
		closed(t, l)
		head = l.Head()
	})
	return head
}

// TestFormat keeps the format as it is: trails are kept for years.
func TestFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	events := []Event{
		{Action: DaemonStart, Outcome: Done, Details: map[string]string{DetailVersion: "1.0", DetailEndpoint: "https://kms.cn-hangzhou.aliyuncs.com"}},
		{
			Action: KeyExport, Outcome: Allowed, Caller: &Caller{UID: 0, GID: 0, PID: 4242}, Door: "control", Key: "payments", KeyID: "key-1",
			Backend: "payments-hsm", RequestID: "r-1", Details: map[string]string{DetailAlgorithm: "RSAES_OAEP_SHA_256", DetailWrappingKey: strings.Repeat("ab", 32)},
		},
		{Action: "decrypt", Outcome: Denied, Caller: &Caller{UID: 1000, GID: 1000, PID: 1, Unit: "payments.service"}, Door: "app", Key: "payments", Reason: "NO_GRANT", Application: true},
		{Action: "encrypt", Outcome: Failed, Reason: "<odd> & \"quoted\"\n\x00\xff\u2028é", Application: true},
		{Action: "encrypt", Outcome: Failed, Reason: strings.Repeat("é", maxValue), Details: map[string]string{DetailState: strings.Repeat("x", maxValue+1)}},
	}
	head := sample(t, dir, events)
	golden := filepath.Join("testdata", "format")
	var names []string
	for _, path := range paths(t, dir) {
		got, name := readFile(t, path), filepath.Base(path)
		names = append(names, name)
		if *update {
			if err := errors.Join(os.MkdirAll(golden, 0o755), os.WriteFile(filepath.Join(golden, name), got, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if want := readFile(t, filepath.Join(golden, name)); !bytes.Equal(got, want) {
			t.Errorf("%s\ngot:\n%s\nwant:\n%s", name, got, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
	}
	if len(names) != 3 {
		t.Errorf("segments %v", names)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != 0o700|fs.ModeDir {
		t.Errorf("the directory has mode %v, %v", info.Mode(), err)
	}
	s, err := Verify(golden, VerifyOptions{Anchors: []Head{head}})
	if err != nil || s.Segments != 3 || s.Head != head || s.Records != 14 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestReopen(t *testing.T) {
	o := options(t.TempDir())
	l := open(t, o)
	for range 3 {
		appendEvents(t, l, 2)
		if _, err := Open(o); !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Errorf("a second writer: %v", err)
		}
		head := l.Head()
		closed(t, l)
		if known, _ := o.Registry.AuditHead(); known != head {
			t.Errorf("the registry knows %v, not %v", known, head)
		}
		l = open(t, o)
		if h := l.Head(); h != head {
			t.Errorf("head %v becomes %v", head, h)
		}
	}
	if s := mustVerify(t, l); s.Records != 7 || s.Segments != 1 {
		t.Errorf("summary %+v", s)
	}
}

func TestRotation(t *testing.T) {
	o := options(t.TempDir())
	o.SegmentSize = 2000
	l := open(t, o)
	for range 5 {
		appendEvents(t, l, 10)
		closed(t, l)
		l = open(t, o)
	}
	s := mustVerify(t, l)
	if s.Segments < 5 || s.Sealed == 0 || s.Records != 50+uint64(2*s.Segments-1) {
		t.Errorf("summary %+v", s)
	}
	for _, path := range paths(t, o.Dir) {
		if size := len(readFile(t, path)); size > 3000 {
			t.Errorf("%s has %d bytes", path, size)
		}
	}
	keys, err := filepath.Glob(filepath.Join(o.Dir, "*key*"))
	if err != nil || len(keys) != 1 {
		t.Errorf("private keys on the disk: %v, %v", keys, err)
	}
	seed := readFile(t, keys[0])
	if !bytes.Equal(seed, l.segment.key.Seed()) {
		t.Error("the private key on the disk is not that of the present epoch")
	}
}

func TestAppendRefuses(t *testing.T) {
	l := open(t, options(t.TempDir()))
	many := map[string]string{}
	for i := range maxDetails + 1 {
		many[fmt.Sprint("d", i)] = ""
	}
	for name, e := range map[string]Event{
		"no action":        {Outcome: Done},
		"no outcome":       {Action: "a"},
		"own outcome":      {Action: "a", Outcome: "perhaps"},
		"own detail":       {Action: "a", Outcome: Done, Details: map[string]string{"What I Think": ""}},
		"empty detail":     {Action: "a", Outcome: Done, Details: map[string]string{"": ""}},
		"many details":     {Action: "a", Outcome: Done, Details: many},
		"newline in it":    {Action: "a", Outcome: Done, Details: map[string]string{"a\n": ""}},
		"the trail's seal": {Action: LogSeal, Outcome: Done},
	} {
		if err := l.Append(t.Context(), e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if head := l.Head(); head.Seq != 1 {
		t.Errorf("%d records", head.Seq)
	}
}

// TestLongestRecord: the longest record that encode lets through can be read.
func TestLongestRecord(t *testing.T) {
	o := options(t.TempDir())
	l := open(t, o)
	long := strings.Repeat("\"", maxValue)
	e := Event{
		Action: long, Outcome: Allowed, Caller: &Caller{UID: 1<<32 - 1, GID: 1<<32 - 1, PID: -1 << 31}, Door: long, Key: long, KeyID: long, Backend: long,
		RequestID: long, Reason: long, Details: map[string]string{},
	}
	for i := range maxDetails {
		e.Details[fmt.Sprintf("%064d", i)] = long
	}
	if err := l.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, l)
	closed(t, l)
	mustVerify(t, open(t, o))
}

func TestConcurrentAppends(t *testing.T) {
	o := options(t.TempDir())
	o.SegmentSize = 20_000
	l := open(t, o)
	const callers, each = 32, 20
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for j := range each {
				e := event(i*each + j)
				e.Application = j%2 == 0
				if err := l.Append(t.Context(), e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	closed(t, l)
	mustVerify(t, l)
	log := string(read(t, o.Dir))
	for i := range callers * each {
		if n := strings.Count(log, fmt.Sprintf(`"key-%d"`, i)); n != 1 {
			t.Errorf("event %d is there %d times", i, n)
		}
	}
}

// TestClose: what was accepted is recorded, of either kind.
func TestClose(t *testing.T) {
	for range 10 {
		l := open(t, options(t.TempDir()))
		var wg sync.WaitGroup
		var mu sync.Mutex
		var recorded []string
		for i := range 100 {
			wg.Go(func() {
				e := event(i)
				e.Application = i%2 == 0
				switch err := l.Append(t.Context(), e); {
				case err == nil:
					mu.Lock()
					recorded = append(recorded, e.Key)
					mu.Unlock()
				case !errors.Is(err, ErrClosed):
					t.Error(err)
				}
			})
		}
		closed(t, l)
		wg.Wait()
		if err := l.Append(t.Context(), event(0)); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		s := mustVerify(t, l)
		var found []string
		if err := Search(l.Dir, Filter{Action: "key.enable"}, func(e Entry) error { found = append(found, e.Key); return nil }); err != nil {
			t.Fatal(err)
		}
		slices.Sort(found)
		slices.Sort(recorded)
		if !slices.Equal(found, recorded) {
			t.Errorf("%d acknowledged, %d found, %+v", len(recorded), len(found), s)
		}
	}
}
