package audit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// disk is a file whose disk can be stopped and can be full.
type disk struct {
	sink
	mu      sync.Mutex
	syncs   int
	fail    error
	room    int           // bytes that a failing write still writes
	arrived chan struct{} // told of each sync, if not nil
	proceed chan struct{}
}

func (d *disk) set(fail error, room int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.room = fail, room
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil && d.room >= 0 {
		n, err := d.sink.WriteAt(p[:min(d.room, len(p))], off)
		return n, errors.Join(err, d.fail)
	}
	return d.sink.WriteAt(p, off)
}

func (d *disk) Sync() error {
	if d.arrived != nil {
		d.arrived <- struct{}{}
		<-d.proceed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	return errors.Join(d.fail, d.sink.Sync())
}

// onDisk opens a log whose file is d. The writer is idle until the first
// Append, which orders the change of the field before its use.
func onDisk(t *testing.T, dir string, d *disk) *Log {
	l := open(t, dir)
	d.sink, l.file = l.file, d
	return l
}

// TestGroupCommit: all that arrive while the disk is busy share the next fsync.
func TestGroupCommit(t *testing.T) {
	dir := t.TempDir()
	d := &disk{arrived: make(chan struct{}), proceed: make(chan struct{})}
	l := onDisk(t, dir, d)
	first := make(chan error, 1)
	go func() { first <- l.Append(t.Context(), event(0)) }()
	<-d.arrived
	const waiting = 50
	results := make(chan error, waiting)
	for i := range waiting {
		data, err := encode(event(i + 1))
		if err != nil {
			t.Fatal(err)
		}
		l.queue <- entry{event: data, result: results}
	}
	if len(first) != 0 {
		t.Error("Append returned before the disk did")
	}
	d.proceed <- struct{}{}
	<-d.arrived
	if len(results) != 0 {
		t.Error("callers were answered before the disk was")
	}
	d.proceed <- struct{}{}
	if err := <-first; err != nil {
		t.Error(err)
	}
	for range waiting {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if d.syncs != 2 {
		t.Errorf("%d fsyncs for %d records", d.syncs, waiting+1)
	}
	mustVerify(t, l, dir)
}

func TestContextEndsWhileWaiting(t *testing.T) {
	dir := t.TempDir()
	d := &disk{arrived: make(chan struct{}), proceed: make(chan struct{})}
	l := onDisk(t, dir, d)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-d.arrived
		cancel()
	}()
	if err := l.Append(ctx, event(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	d.proceed <- struct{}{}
	if err := l.Append(ctx, event(2)); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	closed(t, l)
	if s := mustVerify(t, l, dir); s.Records != 1 {
		t.Errorf("%d records", s.Records)
	}
}

func TestContextEndsBeforeAPlace(t *testing.T) {
	d := &disk{arrived: make(chan struct{}), proceed: make(chan struct{})}
	l := onDisk(t, t.TempDir(), d)
	for range maxQueue {
		l.queue <- entry{event: []byte("{}"), result: make(chan error, 1)}
	}
	<-d.arrived // the writer has taken some; fill what it left
	for len(l.queue) < maxQueue {
		l.queue <- entry{event: []byte("{}"), result: make(chan error, 1)}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.Append(ctx, event(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	go func() {
		for range d.arrived {
			d.proceed <- struct{}{}
		}
	}()
	d.proceed <- struct{}{}
	closed(t, l)
	close(d.arrived)
}

// TestFailsClosed: while the disk fails nothing is recorded or acknowledged, and
// the chain is whole when it works again.
func TestFailsClosed(t *testing.T) {
	for name, room := range map[string]int{"full disk": 0, "full disk within a line": 17, "failing fsync": -1} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := &disk{}
			l := onDisk(t, dir, d)
			appendEvents(t, l, 2)
			seq, hash := l.Head()
			d.set(syscall.ENOSPC, room)
			for range 3 {
				err := l.Append(t.Context(), event(9))
				if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "nothing may be done") {
					t.Errorf("got %v", err)
				}
			}
			if s, h := l.Head(); s != seq || h != hash {
				t.Errorf("the head moved to %d %s", s, h)
			}
			d.set(nil, 0)
			appendEvents(t, l, 1)
			if s := mustVerify(t, l, dir); s.Records != 3 {
				t.Errorf("%d records", s.Records)
			}
			if strings.Contains(string(read(t, dir, FileName)), "key-9") {
				t.Error("an event that failed is in the log")
			}
		})
	}
}

// TestFileTakenAway: a log that nobody will find is no log.
func TestFileTakenAway(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	l := open(t, dir)
	appendEvents(t, l, 1)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), event(1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), event(1)); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("replaced: %v", err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, l, 1)
	if s := mustVerify(t, l, dir); s.Records != 2 {
		t.Errorf("%d records", s.Records)
	}
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), event(1)); err == nil || !strings.Contains(err.Error(), "size") {
		t.Errorf("cut: %v", err)
	}
}

func TestClose(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	var wg sync.WaitGroup
	var mu sync.Mutex
	recorded := 0
	for i := range 100 {
		wg.Go(func() {
			switch err := l.Append(t.Context(), event(i)); {
			case err == nil:
				mu.Lock()
				recorded++
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
	s, err := Verify(bytes.NewReader(read(t, dir, FileName)))
	if err != nil || int(s.Records) != recorded {
		t.Errorf("%d acknowledged, %+v, %v", recorded, s, err)
	}
}

// TestCloseWritesTheQueue: what was accepted is recorded, not dropped. It is
// repeated because the writer may see the queue before it sees Close.
func TestCloseWritesTheQueue(t *testing.T) {
	for range 10 {
		dir := t.TempDir()
		d := &disk{arrived: make(chan struct{}), proceed: make(chan struct{})}
		l := onDisk(t, dir, d)
		data, err := encode(event(1))
		if err != nil {
			t.Fatal(err)
		}
		results := make(chan error, 3)
		l.queue <- entry{event: data, result: results}
		<-d.arrived
		l.queue <- entry{event: data, result: results}
		l.queue <- entry{event: data, result: results}
		closing := make(chan error)
		go func() { closing <- l.Close() }()
		<-l.quit
		go func() {
			for range d.arrived {
				d.proceed <- struct{}{}
			}
		}()
		d.proceed <- struct{}{}
		if err := <-closing; err != nil {
			t.Fatal(err)
		}
		close(d.arrived)
		if s := mustVerify(t, l, dir); s.Records != 3 || len(results) != 3 {
			t.Fatalf("%d records, %d answers", s.Records, len(results))
		}
	}
}
