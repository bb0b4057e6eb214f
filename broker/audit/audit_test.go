package audit

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden file")

// clock ticks a second at each look.
func clock() func() time.Time {
	at := time.Date(2026, 9, 1, 10, 20, 30, 456789000, time.FixedZone("CST", 8*3600))
	return func() time.Time {
		at = at.Add(time.Second)
		return at
	}
}

func open(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(dir, clock())
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

func read(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func event(n int) Event {
	return Event{Action: "decrypt", Outcome: Allowed, Key: fmt.Sprintf("key-%d", n)}
}

func appendEvents(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(t.Context(), event(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// mustVerify checks the log in dir against the head and returns its summary.
func mustVerify(t testing.TB, l *Log, dir string) Summary {
	t.Helper()
	s, err := Verify(bytes.NewReader(read(t, dir, FileName)))
	if err != nil {
		t.Fatal(err)
	}
	if seq, hash := l.Head(); seq != s.Records || hash != s.Head {
		t.Fatalf("head %d %s, summary %+v", seq, hash, s)
	}
	return s
}

// TestFormat keeps the format as it is: logs are kept for years.
func TestFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	l := open(t, dir)
	events := []Event{
		{Action: DaemonStart, Outcome: Done, Details: map[string]string{DetailVersion: "1.0", DetailEndpoint: "https://kms.cn-hangzhou.aliyuncs.com"}},
		{
			Action: KeyExport, Outcome: Allowed, Caller: &Caller{UID: 0, GID: 0, PID: 4242}, Door: "control", Key: "payments", KeyID: "key-1",
			Backend: "payments-hsm", RequestID: "r-1", Details: map[string]string{DetailAlgorithm: "RSAES_OAEP_SHA_256", DetailWrappingKey: strings.Repeat("ab", 32)},
		},
		{Action: "decrypt", Outcome: Denied, Caller: &Caller{UID: 1000, GID: 1000, PID: 1}, Door: "app", Key: "payments", Reason: "NO_GRANT"},
		{Action: "encrypt", Outcome: Failed, Reason: "<odd> & \"quoted\"\n\x00\xff\u2028é"},
		{Action: "encrypt", Outcome: Failed, Reason: strings.Repeat("é", maxValue), Details: map[string]string{DetailState: strings.Repeat("x", maxValue+1)}},
	}
	for _, e := range events {
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, dir, FileName)
	golden := filepath.Join("testdata", "format.golden")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := read(t, "testdata", "format.golden"); !bytes.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	s := mustVerify(t, l, dir)
	if want := time.Date(2026, 9, 1, 2, 20, 31, 456000000, time.UTC); s.Records != 5 || !s.First.Equal(want) || !s.Last.Equal(want.Add(4*time.Second)) {
		t.Errorf("summary %+v", s)
	}
	for name, mode := range map[string]fs.FileMode{dir: 0o700 | fs.ModeDir, filepath.Join(dir, FileName): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode() != mode {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	if seq, hash := l.Head(); seq != 0 || hash != "" {
		t.Errorf("head of an empty log: %d %s", seq, hash)
	}
	for range 3 {
		appendEvents(t, l, 2)
		if _, err := Open(dir, clock()); !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Errorf("a second writer: %v", err)
		}
		seq, hash := l.Head()
		closed(t, l)
		l = open(t, dir)
		if s, h := l.Head(); s != seq || h != hash {
			t.Errorf("head %d %s becomes %d %s", seq, hash, s, h)
		}
	}
	if s := mustVerify(t, l, dir); s.Records != 6 {
		t.Errorf("summary %+v", s)
	}
}

func TestTampering(t *testing.T) {
	dir := t.TempDir()
	appendEvents(t, open(t, dir), 5)
	lines := strings.SplitAfter(strings.TrimSuffix(string(read(t, dir, FileName)), "\n")+"\n", "\n")[:5]
	tests := []struct {
		name  string
		lines []string
		line  int
	}{
		{"edit", []string{lines[0], lines[1], strings.Replace(lines[2], "key-2", "key-3", 1), lines[3], lines[4]}, 3},
		{"edit of the first", []string{strings.Replace(lines[0], "key-0", "key-1", 1), lines[1], lines[2], lines[3], lines[4]}, 1},
		{"another space", []string{lines[0], strings.Replace(lines[1], ":", ": ", 1), lines[2], lines[3], lines[4]}, 2},
		{"another time", []string{lines[0], strings.Replace(lines[1], "T02:", "T03:", 1), lines[2], lines[3], lines[4]}, 2},
		{"swap", []string{lines[0], lines[2], lines[1], lines[3], lines[4]}, 2},
		{"delete", []string{lines[0], lines[1], lines[3], lines[4]}, 3},
		{"delete the first", lines[1:], 1},
		{"duplicate", []string{lines[0], lines[1], lines[1], lines[2], lines[3], lines[4]}, 3},
		{"renumbered after a delete", []string{lines[0], strings.Replace(lines[2], `"seq":3`, `"seq":2`, 1), lines[3]}, 1},
		{"another beginning", []string{strings.Replace(lines[0], `"prev":"0`, `"prev":"1`, 1)}, 1},
		{"empty line", []string{lines[0], "\n", lines[1]}, 2},
		{"unknown field", []string{strings.Replace(lines[0], `"action"`, `"x":1,"action"`, 1)}, 1},
		{"two objects", []string{strings.TrimSuffix(lines[0], "\n") + "{}\n"}, 1},
		{"torn", []string{lines[0], strings.TrimSuffix(lines[1], "\n")}, 2},
		{"too long", []string{lines[0], strings.Repeat("x", maxLine+1) + "\n"}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Verify(strings.NewReader(strings.Join(tt.lines, "")))
			if e, ok := errors.AsType[*ChainError](err); !ok || e.Line != tt.line {
				t.Errorf("got %v, want line %d", err, tt.line)
			}
		})
	}
	// Nothing but the head tells that the end was cut off.
	s, err := Verify(strings.NewReader(strings.Join(lines[:4], "")))
	if err != nil || s.Records != 4 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestTornTail cuts a log within its last line, at every byte.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	appendEvents(t, l, 2)
	closed(t, l)
	whole := read(t, dir, FileName)
	second := bytes.IndexByte(whole, '\n') + 1
	for cut := second; cut < len(whole); cut++ {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir)
		appendEvents(t, l, 1)
		s := mustVerify(t, l, dir)
		torn := whole[second:cut]
		if len(torn) == 0 {
			if s.Records != 2 {
				t.Errorf("cut at %d: %d records", cut, s.Records)
			}
			continue
		}
		if s.Records != 3 {
			t.Errorf("cut at %d: %d records", cut, s.Records)
		}
		if got := read(t, dir, TornName); !bytes.Equal(got, append(bytes.Clone(torn), '\n')) {
			t.Errorf("cut at %d: kept %q", cut, got)
		}
		note := strings.Split(string(read(t, dir, FileName)), "\n")[1]
		if !strings.Contains(note, LogRepaired) || !strings.Contains(note, fmt.Sprintf(`"torn_bytes":"%d"`, len(torn))) {
			t.Errorf("cut at %d: the next record is %s", cut, note)
		}
	}
}

func TestTornFirstLine(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(`{"seq":1,`), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := mustVerify(t, open(t, dir), dir); s.Records != 1 {
		t.Errorf("summary %+v", s)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, content := range map[string]string{
		"not a record":     "hello\n",
		"not a record, 2":  `{"seq":1}` + "\n",
		"not an audit log": strings.Repeat("x", (maxQueue+3)*maxLine),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, FileName)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, clock()); err == nil || !strings.Contains(err.Error(), "move the file away") {
				t.Errorf("got %v", err)
			}
			if got := read(t, dir, FileName); string(got) != content {
				t.Error("the file was changed")
			}
		})
	}
}

func TestAppendRefuses(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	many := map[string]string{}
	for i := range maxDetails + 1 {
		many[fmt.Sprint("d", i)] = ""
	}
	for name, e := range map[string]Event{
		"no action":     {Outcome: Done},
		"no outcome":    {Action: "a"},
		"own outcome":   {Action: "a", Outcome: "perhaps"},
		"own detail":    {Action: "a", Outcome: Done, Details: map[string]string{"What I Think": ""}},
		"empty detail":  {Action: "a", Outcome: Done, Details: map[string]string{"": ""}},
		"many details":  {Action: "a", Outcome: Done, Details: many},
		"newline in it": {Action: "a", Outcome: Done, Details: map[string]string{"a\n": ""}},
	} {
		if err := l.Append(t.Context(), e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if seq, _ := l.Head(); seq != 0 {
		t.Errorf("%d records", seq)
	}
}

// TestLongestRecord: the longest record that encode lets through can be read.
func TestLongestRecord(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	long := strings.Repeat("\x01", maxValue)
	e := Event{
		Action: long, Outcome: Allowed, Caller: &Caller{1<<32 - 1, 1<<32 - 1, -1 << 31}, Door: long, Key: long, KeyID: long, Backend: long,
		RequestID: long, Reason: long, Details: map[string]string{},
	}
	for i := range maxDetails {
		e.Details[fmt.Sprintf("%064d", i)] = long
	}
	if err := l.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, l, dir)
	closed(t, l)
	mustVerify(t, open(t, dir), dir)
}

func TestConcurrentAppends(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	const callers, each = 32, 20
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for j := range each {
				if err := l.Append(t.Context(), event(i*each+j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := mustVerify(t, l, dir); s.Records != callers*each {
		t.Errorf("%d records", s.Records)
	}
	log := string(read(t, dir, FileName))
	for i := range callers * each {
		if n := strings.Count(log, fmt.Sprintf(`"key-%d"`, i)); n != 1 {
			t.Errorf("event %d is there %d times", i, n)
		}
	}
}

// FuzzVerify: any bytes are a whole log or have a first bad line.
func FuzzVerify(f *testing.F) {
	golden := read(f, "testdata", "format.golden")
	f.Add(golden)
	f.Add(bytes.Replace(golden, []byte("payments"), []byte("payment"), 1))
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"seq":1,"seq":2}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Verify(bytes.NewReader(data))
		if lines := uint64(bytes.Count(data, []byte("\n"))); err == nil && s.Records != lines {
			t.Errorf("%d records in %d lines", s.Records, lines)
		}
		if e, ok := errors.AsType[*ChainError](err); err != nil && (!ok || e.Line < 1) {
			t.Errorf("got %v", err)
		}
	})
}

// FuzzOpen: a log that opens after any damage at its end can be appended to.
func FuzzOpen(f *testing.F) {
	golden := read(f, "testdata", "format.golden")
	f.Add(golden, []byte("{"))
	f.Add(golden[:len(golden)-20], []byte{0, 0, 0})
	f.Add([]byte{}, []byte("\n"))
	f.Fuzz(func(t *testing.T, data, more []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), append(bytes.Clone(data), more...), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(dir, clock())
		if err != nil {
			return
		}
		defer l.Close()
		before, _ := l.Head()
		if err := l.Append(t.Context(), event(1)); err != nil {
			t.Fatal(err)
		}
		if after, _ := l.Head(); after != before+1 {
			t.Errorf("record %d follows record %d", after, before)
		}
	})
}
