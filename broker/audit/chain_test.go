package audit

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// trail is a sample as lines by segment, to be damaged.
type trail struct {
	names []string
	lines [][]string // each with its newline
	head  Head
}

func readTrail(t *testing.T) trail {
	dir := t.TempDir()
	s := trail{head: sample(t, dir, []Event{
		{Action: DaemonStart, Outcome: Done, Details: map[string]string{DetailVersion: "1.0"}},
		{Action: KeyExport, Outcome: Allowed, Caller: &Caller{PID: 4242}, Door: "control", Key: "payments"},
		{Action: "decrypt", Outcome: Denied, Caller: &Caller{UID: 1000, GID: 1000, PID: 1}, Reason: "NO_GRANT", Application: true},
	})}
	for _, path := range paths(t, dir) {
		s.names = append(s.names, filepath.Base(path))
		s.lines = append(s.lines, strings.SplitAfter(strings.TrimSuffix(string(readFile(t, path)), "\n")+"\n", "\n"))
		last := &s.lines[len(s.lines)-1]
		*last = (*last)[:len(*last)-1]
	}
	return s
}

func (s trail) clone() trail {
	lines := make([][]string, len(s.lines))
	for i := range s.lines {
		lines[i] = slices.Clone(s.lines[i])
	}
	return trail{slices.Clone(s.names), lines, s.head}
}

// desk is a directory in which damaged trails are laid out.
type desk struct {
	dir   string
	there map[string]string
}

func newDesk(t *testing.T) *desk { return &desk{t.TempDir(), map[string]string{}} }

// lay writes the files that differ from what is there.
func (d *desk) lay(t *testing.T, s trail) {
	t.Helper()
	for name := range d.there {
		if !slices.Contains(s.names, name) {
			if err := os.Remove(filepath.Join(d.dir, name)); err != nil {
				t.Fatal(err)
			}
			delete(d.there, name)
		}
	}
	for i, name := range s.names {
		content := strings.Join(s.lines[i], "")
		if old, ok := d.there[name]; ok && old == content {
			continue
		}
		// In place: ext4 waits for the disk when a file is emptied and written again.
		f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(content)
		if err := errors.Join(err, f.Truncate(int64(len(content))), f.Close()); err != nil {
			t.Fatal(err)
		}
		d.there[name] = content
	}
}

// check verifies the trail with or without the anchor at its end, and wants the
// bad record to be the one of that number; 0 is none.
func (s trail) check(t *testing.T, d *desk, name string, anchored bool, want uint64) {
	t.Helper()
	d.lay(t, s)
	var options VerifyOptions
	if anchored {
		options.Anchors = []Head{s.head}
	}
	_, err := Verify(d.dir, options)
	bad, ok := errors.AsType[*BadRecord](err)
	switch {
	case want == 0 && err != nil:
		t.Errorf("%s, anchored %v: %v", name, anchored, err)
	case want != 0 && (!ok || bad.Seq != want):
		t.Errorf("%s, anchored %v: got %v, want record %d", name, anchored, err, want)
	}
}

// number is of the line i of segment e, from 1.
func (s trail) number(e, i int) uint64 {
	n := i + 1
	for _, lines := range s.lines[:e] {
		n += len(lines)
	}
	return uint64(n)
}

// TestEveryByte changes each byte of a trail, one at a time. The changed record is
// named: always with the anchor, and without it when two records of the epoch or its
// seal come later.
func TestEveryByte(t *testing.T) {
	s := readTrail(t)
	d := newDesk(t)
	for e := range s.lines {
		for i, line := range s.lines[e] {
			number := s.number(e, i)
			for at := range line {
				changed := s.clone()
				b := []byte(line)
				b[at] ^= 0x01
				changed.lines[e][i] = string(b)
				changed.check(t, d, fmt.Sprintf("record %d byte %d", number, at), true, number)
				if number < s.head.Seq-1 {
					changed.check(t, d, fmt.Sprintf("record %d byte %d", number, at), false, number)
				}
			}
		}
	}
}

// TestEveryRecord swaps, repeats and removes each record, and cuts the trail
// after each.
func TestEveryRecord(t *testing.T) {
	s := readTrail(t)
	d := newDesk(t)
	for e := range s.lines {
		for i := range s.lines[e] {
			number := s.number(e, i)
			last, end := number == s.head.Seq, i == len(s.lines[e])-1
			name := fmt.Sprintf("record %d", number)

			without := s.clone()
			without.lines[e] = slices.Delete(without.lines[e], i, i+1)
			without.check(t, d, name+" removed", true, number)
			if !last {
				without.check(t, d, name+" removed", false, number)
			}

			twice := s.clone()
			twice.lines[e] = slices.Insert(twice.lines[e], i, twice.lines[e][i])
			twice.check(t, d, name+" repeated", false, number+1)

			if !end {
				swapped := s.clone()
				swapped.lines[e][i], swapped.lines[e][i+1] = swapped.lines[e][i+1], swapped.lines[e][i]
				swapped.check(t, d, name+" swapped", false, number)
			}

			cut := s.clone()
			cut.names, cut.lines = cut.names[:e+1], cut.lines[:e+1]
			cut.lines[e] = cut.lines[e][:i+1]
			cut.check(t, d, "cut after "+name, false, 0) // only an anchor can tell
			if !last {
				cut.check(t, d, "cut after "+name, true, number+1)
			}
		}
	}
}

// TestTruncation cuts the file of each epoch at each byte, and leaves the later
// ones.
func TestTruncation(t *testing.T) {
	s := readTrail(t)
	d := newDesk(t)
	for e := range s.lines {
		whole := strings.Join(s.lines[e], "")
		for at := range whole {
			cut := s.clone()
			cut.lines[e] = []string{whole[:at]}
			missing := s.number(e, strings.Count(whole[:at], "\n"))
			cut.check(t, d, fmt.Sprintf("segment %d cut at %d", e, at), true, missing)
			if e < len(s.lines)-1 {
				cut.check(t, d, fmt.Sprintf("segment %d cut at %d", e, at), false, missing)
			}
		}
	}
}

func TestSegments(t *testing.T) {
	s := readTrail(t)
	d := newDesk(t)
	second, third := s.number(1, 0), s.number(2, 0)

	swapped := s.clone()
	swapped.lines[0], swapped.lines[1] = swapped.lines[1], swapped.lines[0]
	swapped.check(t, d, "two files exchanged", false, 1)

	without := s.clone()
	without.names, without.lines = slices.Delete(without.names, 1, 2), slices.Delete(without.lines, 1, 2)
	without.check(t, d, "a file removed", false, second)

	rest := s.clone()
	rest.names, rest.lines = rest.names[1:], rest.lines[1:]
	rest.check(t, d, "the first file removed", false, 1)
	if got, err := Verify(d.dir, VerifyOptions{From: second, Anchors: []Head{s.head}}); err != nil || got.Begin.Seq != second || got.Head != s.head {
		t.Errorf("from the second epoch: %+v, %v", got, err)
	}
	if _, err := Verify(d.dir, VerifyOptions{From: second + 1}); err == nil {
		t.Error("from the middle of an epoch: accepted")
	}
	if got, err := Verify(d.dir, VerifyOptions{From: third}); err != nil || got.Segments != 1 {
		t.Errorf("from the third epoch: %+v, %v", got, err)
	}
	if _, err := Verify(d.dir, VerifyOptions{From: second, Anchors: []Head{{Seq: 1, Hash: origin.Hash}}}); err == nil {
		t.Error("an anchor before the beginning: accepted")
	}
	if _, err := Verify(t.TempDir(), VerifyOptions{}); err == nil {
		t.Error("an empty directory: accepted")
	}
}

// rewrite changes a text in each record of the segments from that one on and
// computes the chain anew, as whoever can write the files could. Their seals are made
// with key, if there is one.
func (s trail) rewrite(old, changed string, from int, key ed25519.PrivateKey) trail {
	s = s.clone()
	head := origin
	for e := range s.lines {
		for i, line := range s.lines[e] {
			r, err := decode([]byte(strings.TrimSuffix(line, "\n")))
			if err != nil {
				panic(err)
			}
			if e >= from {
				line = strings.Replace(line, old, changed, 1)
			}
			line = strings.Replace(line, r.Prev, head.Hash, 1)
			if r.Action == LogSeal && key != nil && e >= from {
				body := line[:strings.LastIndex(line, sigField)]
				line = fmt.Sprintf("%s%s%x\"}\n", body, sigField, ed25519.Sign(key, append([]byte(sealDomain), body...)))
			}
			s.lines[e][i] = line
			head = head.after([]byte(strings.TrimSuffix(line, "\n")))
		}
	}
	s.head = head
	return s
}

// TestLaterRoot: whoever has the machine and its present key in the third epoch can
// rewrite that one, which an anchor shows, and no earlier one.
func TestLaterRoot(t *testing.T) {
	s := readTrail(t)
	d := newDesk(t)
	source := &seeds{}
	var present ed25519.PrivateKey
	for range 3 {
		seed := make([]byte, ed25519.SeedSize)
		_, _ = source.Read(seed)
		present = ed25519.NewKeyFromSeed(seed)
	}
	for name, key := range map[string]ed25519.PrivateKey{"with the old signatures": nil, "with the present key": present} {
		s.rewrite("payments", "pavments", 0, key).check(t, d, "first epoch rewritten "+name, false, s.number(0, len(s.lines[0])-1))
		s.rewrite("daemon.start", "daemon.stop!", 1, nil).check(t, d, "second epoch rewritten", false, s.number(1, len(s.lines[1])-1))
	}
	opening, err := decode([]byte(strings.TrimSuffix(s.lines[1][0], "\n")))
	if err != nil {
		t.Fatal(err)
	}
	s.rewrite(opening.Details[DetailPublicKey], publicHex(present), 1, present).
		check(t, d, "second epoch with the present key", false, s.number(1, 0))
	tail := s.rewrite("daemon.start", "daemon.stop!", 2, nil)
	tail.check(t, d, "present epoch rewritten", false, 0)
	tail.head = s.head
	tail.check(t, d, "present epoch rewritten", true, s.head.Seq)
}

// TestOtherTrail: a trail that is whole but not this one is known by any anchor.
func TestOtherTrail(t *testing.T) {
	l := open(t, options(t.TempDir()))
	first := l.Head()
	appendEvents(t, l, 3)
	other := open(t, options(t.TempDir()))
	appendEvents(t, other, 3)
	if _, err := Verify(other.Dir, VerifyOptions{}); err != nil {
		t.Error(err)
	}
	_, err := Verify(other.Dir, VerifyOptions{Anchors: []Head{first}})
	if bad, ok := errors.AsType[*BadRecord](err); !ok || bad.Seq != 1 {
		t.Errorf("got %v", err)
	}
}

func TestStrictDecoding(t *testing.T) {
	s := readTrail(t)
	line := strings.TrimSuffix(s.lines[0][1], "\n")
	if _, err := decode([]byte(line)); err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"space":           strings.Replace(line, ":", ": ", 1),
		"unknown field":   strings.Replace(line, `"action"`, `"x":1,"action"`, 1),
		"field twice":     strings.Replace(line, `{"seq":2`, `{"seq":1,"seq":2`, 1),
		"another case":    strings.Replace(line, `"seq"`, `"Seq"`, 1),
		"two objects":     line + "{}",
		"escaped letter":  strings.Replace(line, "daemon", `\u0064aemon`, 1),
		"number as float": strings.Replace(line, `"seq":2`, `"seq":2.0`, 1),
		"no action":       strings.Replace(line, `"daemon.start"`, `""`, 1),
		"another time":    strings.Replace(line, `Z"`, `+00:00"`, 1),
		"nothing":         "",
	} {
		if _, err := decode([]byte(changed)); err == nil {
			t.Errorf("%s: accepted %s", name, changed)
		}
	}
}

func TestParseHead(t *testing.T) {
	h := Head{Seq: 12, Hash: strings.Repeat("0f", 32)}
	if got, err := ParseHead(h.String()); err != nil || got != h {
		t.Errorf("got %v, %v", got, err)
	}
	for _, s := range []string{"", "12", "12:", ":" + h.Hash, "0:" + h.Hash, "-1:" + h.Hash, "12:" + h.Hash[1:], "12:" + h.Hash + "00", "12:" + strings.Repeat("x", 64)} {
		if _, err := ParseHead(s); err == nil {
			t.Errorf("%q: accepted", s)
		}
	}
}

// FuzzDecode: what is a record is written in one way only.
func FuzzDecode(f *testing.F) {
	for line := range bytes.Lines(read(f, filepath.Join("testdata", "format"))) {
		f.Add(bytes.TrimSuffix(line, []byte("\n")))
	}
	f.Add([]byte(`{"seq":1,"seq":2}`))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decode(line)
		if err != nil {
			return
		}
		if again, err := marshal(r); err != nil || !bytes.Equal(again, line) {
			t.Errorf("%q is written again as %q, %v", line, again, err)
		}
	})
}

// FuzzVerify: any bytes are a whole trail or have a first bad record.
func FuzzVerify(f *testing.F) {
	golden := read(f, filepath.Join("testdata", "format"))
	f.Add(golden)
	f.Add(golden[:len(golden)/2])
	f.Add(bytes.Replace(golden, []byte("payments"), []byte("payment"), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf(segmentFormat, 1)), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Verify(dir, VerifyOptions{})
		bad, ok := errors.AsType[*BadRecord](err)
		switch {
		case err == nil && s.Records != uint64(bytes.Count(data, []byte("\n"))):
			t.Errorf("%d records in %q", s.Records, data)
		case ok && (bad.Seq < s.Head.Seq || bad.Seq == 0):
			t.Errorf("%v after %d records", err, s.Records)
		}
	})
}
