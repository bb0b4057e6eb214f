package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"time"
)

// Entry is a record and the line that it was read from.
type Entry struct {
	Record
	Line []byte // without its newline; valid during the call that it is given to
}

// Filter selects records. What is not set matches all.
type Filter struct {
	Key, Action string // patterns as of path.Match
	App         string // the same
	UID         *uint32
	Since       time.Time
}

// Check returns an error for a pattern that is none.
func (f *Filter) Check() error {
	for _, pattern := range []string{f.Key, f.Action, f.App} {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("%q: %w", pattern, err)
		}
	}
	return nil
}

func (f *Filter) matches(r *Record) bool {
	return matches(f.Key, r.Key) && matches(f.Action, r.Action) && f.isOf(r) && !r.At().Before(f.Since)
}

func matches(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return pattern == "" || ok && err == nil
}

func (f *Filter) isOf(r *Record) bool {
	uid, app := r.Details[DetailUID], r.Details[DetailApp] // of a summary
	if c := r.Caller; c != nil && c.App != "" {
		uid, app = "", c.App
	} else if c != nil {
		uid, app = strconv.FormatUint(uint64(c.UID), 10), ""
	}
	return (f.UID == nil || uid == strconv.FormatUint(uint64(*f.UID), 10)) && (f.App == "" || app != "" && matches(f.App, app))
}

// Search calls yield with the records that match, in their order. It checks
// nothing; lines that are no records are passed over, and the first of them is the
// error in the end.
func Search(dir string, filter Filter, yield func(Entry) error) error {
	segments, err := listSegments(dir)
	if err != nil {
		return err
	}
	var bad error
	for _, s := range segments {
		err := scan(s, func(e Entry) error {
			if !filter.matches(&e.Record) {
				return nil
			}
			return yield(e)
		})
		if isUnreadable(err) {
			bad = errors.Join(bad, err)
		} else if err != nil {
			return err
		}
	}
	return bad
}

// unreadable is the first line of a file that is no record.
type unreadable struct {
	path string
	line int
	err  error
}

func (e *unreadable) Error() string { return fmt.Sprintf("%s line %d %v", e.path, e.line, e.err) }

func isUnreadable(err error) bool {
	_, ok := errors.AsType[*unreadable](err)
	return ok
}

// scan reads a segment that is not followed.
func scan(s segmentFile, yield func(Entry) error) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return readEntries(s.path, newLineReader(f), yield)
}

// readEntries reads all lines that are there now.
func readEntries(name string, lines *lineReader, yield func(Entry) error) error {
	var bad error
	for number := 1; ; number++ {
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return bad
		case err != nil:
			return &unreadable{name, number, err}
		}
		r, err := decode(line)
		if err != nil {
			if bad == nil {
				bad = &unreadable{name, number, err}
			}
			continue
		}
		if err := yield(Entry{r, line}); err != nil {
			return err
		}
	}
}

// followInterval is how often Tail looks for more.
const followInterval = 200 * time.Millisecond

// Tail calls yield with the last n records, and with follow also with those that
// are written until ctx ends.
func Tail(ctx context.Context, dir string, n int, follow bool, yield func(Entry) error) error {
	segments, err := listSegments(dir)
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		return fmt.Errorf("there is no audit trail in %s", dir)
	}
	last, err := lastEntries(segments[:len(segments)-1], n)
	if err != nil {
		return err
	}
	current := segments[len(segments)-1]
	f, err := os.Open(current.path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	lines := newLineReader(f)
	err = readEntries(current.path, lines, last.add)
	if err == nil {
		err = last.each(yield)
	}
	ticker := time.NewTicker(followInterval)
	defer ticker.Stop()
	for follow && err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		// Looked for before the rest is read: a segment with a successor is complete.
		next, found, listErr := successor(dir, current)
		if err = errors.Join(listErr, readEntries(current.path, lines, yield)); err != nil || !found {
			continue
		}
		f.Close()
		if f, err = os.Open(next.path); err == nil {
			current, lines = next, newLineReader(f)
			err = readEntries(current.path, lines, yield)
		}
	}
	return err
}

func successor(dir string, current segmentFile) (segmentFile, bool, error) {
	segments, err := listSegments(dir)
	for _, s := range segments {
		if s.first > current.first {
			return s, true, err
		}
	}
	return segmentFile{}, false, err
}

// window keeps the last entries of many.
type window struct {
	size    int
	entries []Entry
}

func (w *window) add(e Entry) error {
	e.Line = append([]byte(nil), e.Line...)
	if w.entries = append(w.entries, e); len(w.entries) > w.size {
		w.entries = w.entries[1:]
	}
	return nil
}

func (w *window) each(yield func(Entry) error) error {
	for _, e := range w.entries {
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}

// lastEntries reads as many segments from the end as n entries may need.
func lastEntries(segments []segmentFile, n int) (*window, error) {
	w := &window{size: n}
	from := len(segments)
	for from > 0 && segments[from-1].first+uint64(n) > segments[len(segments)-1].first {
		from--
	}
	for _, s := range segments[max(0, from-1):] {
		if err := scan(s, w.add); err != nil {
			return nil, err
		}
	}
	return w, nil
}
