package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// crashed makes a trail with some records and forgets the log, as a crash would.
func crashed(t *testing.T, records int) Options {
	t.Helper()
	o := options(t.TempDir())
	l := open(t, o)
	appendEvents(t, l, records)
	closed(t, l)
	return o
}

// copyTo copies the files of a trail.
func copyTo(t *testing.T, from, to string) {
	t.Helper()
	if err := errors.Join(os.CopyFS(to, os.DirFS(from)), os.Chmod(filepath.Join(to, keyName), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestTornTail cuts a trail within its last line, at every byte.
func TestTornTail(t *testing.T) {
	o := crashed(t, 2)
	name := filepath.Base(paths(t, o.Dir)[0])
	whole := read(t, o.Dir)
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for cut := last; cut < len(whole); cut++ {
		torn := options(filepath.Join(t.TempDir(), "audit"))
		copyTo(t, o.Dir, torn.Dir)
		if err := os.WriteFile(filepath.Join(torn.Dir, name), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, torn)
		appendEvents(t, l, 1)
		s := mustVerify(t, l)
		if cut == last {
			if s.Records != 3 {
				t.Errorf("cut at %d: %d records", cut, s.Records)
			}
			continue
		}
		if s.Records != 4 {
			t.Errorf("cut at %d: %d records", cut, s.Records)
		}
		kept := whole[last:cut]
		if got := readFile(t, filepath.Join(torn.Dir, TornName)); !bytes.Equal(got, append(bytes.Clone(kept), '\n')) {
			t.Errorf("cut at %d: kept %q", cut, got)
		}
		note := strings.Split(string(read(t, torn.Dir)), "\n")[2]
		if !strings.Contains(note, LogRepair) || !strings.Contains(note, fmt.Sprintf(`"torn_bytes":"%d"`, len(kept))) {
			t.Errorf("cut at %d: the next record is %s", cut, note)
		}
	}
}

// TestTrailGone: what the registry knows of and is not there is recorded, and the
// trail goes on with numbers of its own.
func TestTrailGone(t *testing.T) {
	tests := []struct {
		name    string
		damage  func(dir, file string, lines []string) error
		reason  string
		missing uint64 // the first bad record
		from    uint64 // where the trail goes on
	}{
		{"all files", func(dir, _ string, _ []string) error { return os.RemoveAll(dir) }, ReasonMissing, 1, 7},
		{"the segment", func(_, file string, _ []string) error { return os.Remove(file) }, ReasonMissing, 1, 7},
		{"the end", func(_, file string, lines []string) error {
			return os.WriteFile(file, []byte(strings.Join(lines[:4], "")), 0o600)
		}, ReasonMissing, 5, 7},
		{"the end within a line", func(_, file string, lines []string) error {
			return os.WriteFile(file, []byte(strings.Join(lines[:4], "")+lines[4][:9]), 0o600)
		}, ReasonMissing, 5, 7},
		{"the key", func(dir, _ string, _ []string) error { return os.Remove(filepath.Join(dir, keyName)) }, ReasonKeyLost, 7, 7},
		{"the last record's text", func(_, file string, lines []string) error {
			lines[5] = strings.Replace(lines[5], "key-4", "key-5", 1)
			return os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600)
		}, ReasonChanged, 7, 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := crashed(t, 5)
			path := paths(t, o.Dir)[0]
			if err := tt.damage(o.Dir, path, strings.SplitAfter(string(readFile(t, path)), "\n")); err != nil {
				t.Fatal(err)
			}
			l := open(t, o)
			appendEvents(t, l, 2)
			_, err := Verify(o.Dir, VerifyOptions{})
			if bad, ok := errors.AsType[*BadRecord](err); !ok || bad.Seq != tt.missing || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("got %v, want record %d and %s", err, tt.missing, tt.reason)
			}
			s, err := Verify(o.Dir, VerifyOptions{From: tt.from, Anchors: []Head{l.Head()}})
			if err != nil || s.Begin.Seq != tt.from || s.Records < 3 {
				t.Errorf("from %d: %+v, %v", tt.from, s, err)
			}
			closed(t, l)
			if again := open(t, o); again.Head() != l.Head() {
				t.Errorf("opened again: %v becomes %v", l.Head(), again.Head())
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	o := crashed(t, 5)
	lines := strings.SplitAfter(string(read(t, o.Dir)), "\n")
	name := filepath.Base(paths(t, o.Dir)[0])
	for what, content := range map[string]string{
		"not a record":        strings.Join(lines[:3], "") + "hello\n" + strings.Join(lines[3:], ""),
		"no record at all":    "hello\n",
		"a changed record":    strings.Join(lines[:2], "") + strings.Replace(lines[2], "key-1", "key-2", 1) + strings.Join(lines[3:], ""),
		"a record less":       strings.Join(lines[:2], "") + strings.Join(lines[3:], ""),
		"no opening":          strings.Join(lines[1:], ""),
		"not an audit log":    strings.Repeat("x", 3*maxLine),
		"nothing in the file": "",
	} {
		t.Run(what, func(t *testing.T) {
			damaged := options(filepath.Join(t.TempDir(), "audit"))
			copyTo(t, o.Dir, damaged.Dir)
			path := filepath.Join(damaged.Dir, name)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(damaged); err == nil || !strings.Contains(err.Error(), "move the file away") || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
			if got := readFile(t, path); string(got) != content {
				t.Error("the file was changed")
			}
		})
	}
	t.Run("an older format", func(t *testing.T) {
		old := options(t.TempDir())
		if err := os.WriteFile(filepath.Join(old.Dir, oldName), []byte("{}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(old); err == nil || !strings.Contains(err.Error(), "older format") {
			t.Errorf("got %v", err)
		}
	})
}

// TestCrashInRotation opens what a crash leaves at each step from one epoch to the
// next, and finds a trail that goes on.
func TestCrashInRotation(t *testing.T) {
	before, after := options(t.TempDir()), options(t.TempDir())
	l := open(t, before)
	appendEvents(t, l, 3)
	closed(t, l)
	os.Remove(after.Dir)
	copyTo(t, before.Dir, after.Dir)
	after.SegmentSize = int64(len(read(t, before.Dir)))
	l = open(t, after)
	appendEvents(t, l, 1)
	closed(t, l)
	old, next := readFile(t, filepath.Join(before.Dir, keyName)), readFile(t, filepath.Join(after.Dir, keyName))
	segments := paths(t, after.Dir)
	if len(segments) != 2 {
		t.Fatalf("segments %v", segments)
	}
	sealed, opening := readFile(t, segments[0]), bytes.SplitAfter(readFile(t, segments[1]), []byte("\n"))[0]
	unsealed := read(t, before.Dir)
	first, second := filepath.Base(segments[0]), filepath.Base(segments[1])
	tests := []struct {
		name  string
		files map[string][]byte
		head  uint64
	}{
		{"half of the next key", map[string][]byte{first: unsealed, keyName: old, nextKeyName: next[:7]}, 4},
		{"the next key", map[string][]byte{first: unsealed, keyName: old, nextKeyName: next}, 4},
		{"half of the seal", map[string][]byte{first: sealed[:len(sealed)-9], keyName: old, nextKeyName: next}, 5},
		{"the seal", map[string][]byte{first: sealed, keyName: old, nextKeyName: next}, 6},
		{"the old key is wiped", map[string][]byte{first: sealed, keyName: make([]byte, len(old)), nextKeyName: next}, 6},
		{"the old key is gone", map[string][]byte{first: sealed, nextKeyName: next}, 6},
		{"the next key has its name", map[string][]byte{first: sealed, keyName: next}, 6},
		{"half of the next segment", map[string][]byte{first: sealed, keyName: next, newSegment: opening[:9]}, 6},
		{"the next segment", map[string][]byte{first: sealed, keyName: next, second: opening}, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t.TempDir())
			for name, content := range tt.files {
				if err := os.WriteFile(filepath.Join(o.Dir, name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l := open(t, o)
			if l.Head().Seq != tt.head {
				t.Errorf("head %v, want %d", l.Head(), tt.head)
			}
			appendEvents(t, l, 2)
			mustVerify(t, l)
			if keys, err := filepath.Glob(filepath.Join(o.Dir, "*key*")); err != nil || len(keys) != 1 {
				t.Errorf("private keys on the disk: %v, %v", keys, err)
			}
		})
	}
}

// FuzzOpen: a trail that opens after any damage at its end can be written on.
func FuzzOpen(f *testing.F) {
	golden := readFile(f, paths(f, filepath.Join("testdata", "format"))[0])
	f.Add(golden, []byte("{"))
	f.Add(golden[:len(golden)-20], []byte{0, 0, 0})
	f.Add([]byte{}, []byte("\n"))
	f.Fuzz(func(t *testing.T, data, more []byte) {
		o := options(t.TempDir())
		o.Reserve = 0
		path := filepath.Join(o.Dir, fmt.Sprintf(segmentFormat, 1))
		if err := os.WriteFile(path, append(bytes.Clone(data), more...), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(o)
		if err != nil {
			return
		}
		defer l.Close()
		before := l.Head().Seq
		if err := l.Append(t.Context(), event(1)); err != nil {
			t.Fatal(err)
		}
		if after := l.Head().Seq; after != before+1 {
			t.Errorf("record %d follows record %d", after, before)
		}
	})
}
