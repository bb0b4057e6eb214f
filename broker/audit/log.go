// Package audit keeps the trail of who did what with which key. Every event is
// one line of JSON that is on the disk before the caller goes on, and every line
// carries the hash of the line before it, so that an edit, a deletion or a
// change of order in the past shows. What cannot be recorded must not be done:
// when the log cannot be written, Append fails and so must its caller.
//
// A hash chain without a signature does not show that the end was cut off or
// that the whole was written anew. Compare with a [Log.Head] kept elsewhere.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// FileName is the log's name in its directory, and TornName that of the file
// which keeps what a crash left of unfinished lines.
const (
	FileName = "audit.log"
	TornName = "audit.torn"
)

// ErrClosed is returned by Append after Close.
var ErrClosed = errors.New("the audit log is closed")

// maxQueue is how many callers may wait for the writer at once; more wait for a
// place. It also bounds a batch, and with it what a crash can tear.
const maxQueue = 256

// Log is an audit log open for appending. Its methods may be called
// concurrently.
type Log struct {
	path  string
	now   func() time.Time
	queue chan entry
	quit  chan struct{} // closed by Close
	done  chan struct{} // closed by the writer when it has ended
	once  sync.Once

	// Of the writer.
	file sink
	self fs.FileInfo // the identity of the open file
	size int64       // up to which the file is known to be on the disk
	torn bool        // there may be bytes beyond size, of a write that failed

	mu      sync.Mutex
	head    link  // guarded by mu for readers; only the writer changes it
	failure error // of the last batch
}

// sink is the part of *os.File that can fail.
type sink interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// entry is an event on its way to the writer.
type entry struct {
	event  []byte // JSON
	result chan error
}

// Open opens the log in dir, which it makes if need be, and takes it for itself
// until Close. After a crash the last line may be torn: it is moved to TornName
// and that is recorded. Times are those of now.
func Open(dir string, now func() time.Time) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	path := filepath.Join(dir, FileName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	l := &Log{
		path: path, now: now, file: file,
		queue: make(chan entry, maxQueue), quit: make(chan struct{}), done: make(chan struct{}),
	}
	if err := l.recover(file, dir); err != nil {
		file.Close()
		return nil, fmt.Errorf("audit log %s: %w", path, err)
	}
	go l.run()
	return l, nil
}

// recover finds the end of the chain and repairs a torn line.
func (l *Log) recover(file *os.File, dir string) error {
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process writes to it: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	var err error
	if l.self, err = file.Stat(); err != nil {
		return err
	}
	t, err := readTail(file, l.self.Size())
	if err != nil {
		return err
	}
	l.head, l.size = t.head, l.self.Size()-int64(len(t.torn))
	if len(t.torn) == 0 {
		return nil
	}
	if err := saveTorn(dir, t.torn); err != nil {
		return err
	}
	l.torn = true
	note, err := encode(tornEvent(t.torn))
	if err != nil {
		return err
	}
	return l.commit([][]byte{note})
}

// Append records event and returns when it is on the disk. Any error means that
// the caller must not go on. When ctx ends first, the event may have been
// recorded nevertheless.
func (l *Log) Append(ctx context.Context, event Event) error {
	data, err := encode(event)
	if err != nil {
		return fmt.Errorf("audit event: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	e := entry{event: data, result: make(chan error, 1)}
	select {
	case <-l.quit:
		return ErrClosed
	default:
	}
	select {
	case l.queue <- e:
	case <-ctx.Done():
		return fmt.Errorf("audit log: %w", ctx.Err())
	case <-l.quit:
		return ErrClosed
	}
	select {
	case err := <-e.result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("audit log: %w", ctx.Err())
	case <-l.done:
	}
	select {
	case err := <-e.result: // written as the last
		return err
	default:
		return ErrClosed
	}
}

// Head returns the number of the last record and the hash of its line, which
// together stand for the whole log up to there; 0 and "" for an empty log.
func (l *Log) Head() (seq uint64, hash string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head.seq == 0 {
		return 0, ""
	}
	return l.head.seq, l.head.hash
}

// Err returns why the last records could not be written, nil when they were.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// Close records what is queued and closes the log.
func (l *Log) Close() error {
	var err error
	l.once.Do(func() {
		close(l.quit)
		<-l.done
		err = l.file.Close()
	})
	<-l.done
	return err
}

// run is the writer. Whoever waits while it waits for the disk is in the next
// batch, so that many callers share one fsync.
func (l *Log) run() {
	defer close(l.done)
	for {
		select {
		case e := <-l.queue:
			l.write(l.gather(e))
		case <-l.quit:
			if batch := l.gather(); len(batch) > 0 {
				l.write(batch)
			}
			return
		}
	}
}

// gather adds all that is queued to batch.
func (l *Log) gather(batch ...entry) []entry {
	for len(batch) <= maxQueue {
		select {
		case e := <-l.queue:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

func (l *Log) write(batch []entry) {
	events := make([][]byte, 0, len(batch))
	for _, e := range batch {
		events = append(events, e.event)
	}
	err := l.commit(events)
	if err != nil {
		err = fmt.Errorf("audit log %s cannot be written, so nothing may be done: %w", l.path, err)
	}
	l.mu.Lock()
	l.failure = err
	l.mu.Unlock()
	for _, e := range batch {
		e.result <- err
	}
}

// commit writes events as the next lines and waits for the disk. After a failure
// the log is as it was before: the next commit writes over what this one left.
func (l *Log) commit(events [][]byte) error {
	if err := l.checkFile(); err != nil {
		return err
	}
	if l.torn {
		if err := l.file.Truncate(l.size); err != nil {
			return err
		}
	}
	head, at := l.head, l.now()
	var lines []byte
	for _, event := range events {
		line := head.next(at, event)
		head = head.after(line)
		lines = append(append(lines, line...), '\n')
	}
	l.torn = true
	if _, err := l.file.WriteAt(lines, l.size); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	l.torn, l.size = false, l.size+int64(len(lines))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head = head
	return nil
}

// checkFile notices that the log was removed, replaced or written by somebody
// else: records would go where nobody finds them, or leave a broken chain.
func (l *Log) checkFile() error {
	info, err := os.Stat(l.path)
	switch {
	case err != nil:
		return err
	case !os.SameFile(info, l.self):
		return errors.New("it was replaced by another file: put it back, or restart the daemon to begin a new one")
	case info.Size() < l.size || info.Size() > l.size && !l.torn:
		return errors.New("somebody else changed its size: verify it, then restart the daemon")
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
