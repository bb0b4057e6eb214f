// Package audit keeps the trail of who did what with which key. Every event is
// one line of JSON, and every line carries the hash of the line before it. What
// cannot be recorded must not be done: when the trail cannot be written, Append
// fails and so must its caller.
//
// A trail is cut into segments. Each is an epoch with an Ed25519 key of its own,
// whose last record is signed and names the key of the next; then the private key
// is wiped. So whoever takes the machine over later can change the present epoch
// but not the past ones. docs/audit.md has the format and says exactly what this
// shows and what it does not.
package audit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

// ErrClosed is returned by Append after Close.
var ErrClosed = errors.New("the audit trail is closed")

const (
	// maxQueue is how many records may be on their way to the disk. It also bounds
	// a batch.
	maxQueue = 4096
	// patience is how long a call waits for the disk before it is refused, and how
	// long the disk may be silent before all are.
	patience = 10 * time.Second
)

// Options are what a Log is made of.
type Options struct {
	Dir      string   // made if need be
	Registry Registry // keeps the head elsewhere
	Logger   *slog.Logger

	// CommitDelay is how long a record of an application may wait for others
	// before it is written. With BeforeAnswer it does not wait, its call does.
	CommitDelay  time.Duration
	BeforeAnswer bool
	// Unrecorded lets applications go on while the trail cannot be written. How
	// many calls have no record is recorded afterwards.
	Unrecorded bool

	SegmentSize int64         // in bytes, after which a segment is sealed
	SegmentAge  time.Duration // likewise
	// Reserve is how many bytes of disk are held back for administrative records,
	// and for those of applications that have their answers already.
	Reserve int64

	random io.Reader // of the keys; nil is the system's
}

// Registry keeps the head of a trail in another place.
type Registry interface {
	AuditHead() (Head, error) // zero if there is none
	SetAuditHead(Head) error
}

// Log is a trail open for appending. Its methods may be called concurrently.
type Log struct {
	Options
	lock    *os.File
	places  chan struct{} // one for each record on its way
	wake    chan struct{} // tells the writer that there is something new
	moved   chan struct{} // tells the keeper of the head
	quit    chan struct{} // closed by Close
	done    chan struct{} // closed by the writer when it has ended
	kept    chan struct{} // closed by the keeper when it has ended
	once    sync.Once
	denials denials

	// Of the writer.
	segment  *segment
	reserve  *reserve
	rotateAt time.Time // not before, after a rotation that failed
	note     *Event    // to be recorded first
	lines    []byte    // of the last batch, for the next

	mu      sync.Mutex
	pending []entry
	urgent  bool      // somebody waits for pending
	closed  bool      // the writer takes no more
	busy    time.Time // since when the writer has been at the disk, zero if it is not
	head    Head      // only the writer changes it
	failure error     // of the last batch
	short   error     // why the reserve is not complete
	gap     gap
	stats   Stats
}

// entry is an event on its way to the writer.
type entry struct {
	event  []byte // JSON
	at     time.Time
	result chan error // nil: nobody waits
	placed bool       // it has one of Log.places
	admin  bool       // it is of administration
}

// Open opens the trail in a directory and takes it for itself until Close. What a
// crash left unfinished is repaired, and what is missing is recorded. A trail that
// is damaged otherwise is an error which names the file.
func Open(options Options) (*Log, error) {
	l := &Log{
		Options: options, places: make(chan struct{}, maxQueue),
		wake: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}), kept: make(chan struct{}),
	}
	if l.random == nil {
		l.random = rand.Reader
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("audit trail in %s: %w", l.Dir, err)
	}
	go l.run()
	go l.keepHead()
	return l, nil
}

func (l *Log) open() (err error) {
	if err := os.MkdirAll(l.Dir, 0o700); err != nil {
		return err
	}
	if l.lock, err = os.Open(l.Dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.closeFiles())
		}
	}()
	if l.reserve, err = openReserve(l.Dir, l.Reserve); err != nil {
		return err
	}
	err = l.recover()
	for isFull(err) && l.reserve.give() {
		err = l.recover()
	}
	if err != nil {
		return err
	}
	l.refill()
	if l.note == nil {
		return nil
	}
	note, err := encode(*l.note)
	if err != nil {
		return err
	}
	return l.commit([]entry{{event: note, at: time.Now()}})
}

func (l *Log) closeFiles() error {
	var errs []error
	if l.segment != nil && l.segment.file != nil {
		errs = append(errs, l.segment.end())
	}
	if l.reserve != nil {
		errs = append(errs, l.reserve.file.Close())
	}
	return errors.Join(append(errs, l.lock.Close())...)
}

// Append records event. It returns when an administrative event is on the disk,
// and when one of an application is on its way there. Any error means that the
// caller must not go on. When ctx ends first or the disk is silent, the event may
// have been recorded nevertheless.
func (l *Log) Append(ctx context.Context, event Event) error {
	if isOwn(event.Action) {
		return fmt.Errorf("audit event: %q is an action of the trail itself", event.Action)
	}
	data, err := encode(event)
	if err != nil {
		return fmt.Errorf("audit event: %w", err)
	}
	e := entry{event: data, at: time.Now(), placed: true, admin: !event.Application}
	if l.denials.suppresses(&event, e.at) {
		l.count(func(s *Stats) { s.SuppressedDenials++ })
		return nil
	}
	if !event.Application || l.BeforeAnswer {
		e.result = make(chan error, 1)
	}
	switch err := l.submit(ctx, e); {
	case err == nil, errors.Is(err, ErrClosed):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("audit trail: %w", ctx.Err())
	default:
		return l.refuse(err, event.Application)
	}
}

// refuse decides what becomes of a call that cannot be recorded.
func (l *Log) refuse(err error, application bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if application && l.Unrecorded {
		l.gap.add(&l.gap.unrecorded)
		l.stats.Unrecorded++
		return nil
	}
	l.gap.add(&l.gap.refused)
	l.stats.Refused++
	return fmt.Errorf("audit trail in %s cannot be written, so nothing may be done: %w", l.Dir, err)
}

// submit hands an entry to the writer, and waits for it if somebody should.
func (l *Log) submit(ctx context.Context, e entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.refusal(e.admin); err != nil {
		return err
	}
	select {
	case l.places <- struct{}{}:
	default:
		if err := l.awaitPlace(ctx); err != nil {
			return err
		}
	}
	if err := l.push(e); err != nil || e.result == nil {
		return err
	}
	return l.await(ctx, e)
}

// Ready returns why the record of an application's call could not be written now,
// nil if it could or need not be. Who asks before the call spares what the call costs;
// Append says it again afterwards.
func (l *Log) Ready() error {
	if l.Unrecorded {
		return nil
	}
	err := l.refusal(false)
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	return l.refuse(err, true)
}

// refusal is why nothing new is accepted. Administrative records are tried
// nevertheless unless the disk is silent.
func (l *Log) refusal(admin bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch err := l.silent(); {
	case l.closed:
		return ErrClosed
	case err != nil:
		return err
	case admin:
		return nil
	case l.failure != nil:
		return l.failure
	default:
		return l.short
	}
}

// silent is an error when the disk has not answered for too long.
func (l *Log) silent() error {
	if since := time.Since(l.busy); !l.busy.IsZero() && since > patience {
		return fmt.Errorf("the disk has not answered for %v", since.Round(time.Second))
	}
	return nil
}

// push makes an entry that has its place pending.
func (l *Log) push(e entry) error {
	const many = maxQueue / 4
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		<-l.places
		return ErrClosed
	}
	l.pending = append(l.pending, e)
	urgent := e.result != nil || len(l.pending) == many
	l.urgent = l.urgent || urgent
	if urgent || len(l.pending) == 1 {
		signal(l.wake)
	}
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

var errFull = fmt.Errorf("%d records wait for the disk, and none was written for %v", maxQueue, patience)

func (l *Log) awaitPlace(ctx context.Context) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case l.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return errFull
	case <-l.quit:
		return ErrClosed
	}
}

func (l *Log) await(ctx context.Context, e entry) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case err := <-e.result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return fmt.Errorf("the disk has not answered for %v", patience)
	case <-l.done:
	}
	select {
	case err := <-e.result: // written as the last
		return err
	default:
		return ErrClosed
	}
}

// Head is the last record on the disk.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Err returns why records cannot be written at present, nil when they can.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.silent(); err != nil {
		return err
	}
	if l.failure == nil && l.short != nil {
		return fmt.Errorf("only administrative records are written: %w", l.short)
	}
	return l.failure
}

// Close records what is on its way and closes the trail. A disk that is silent is
// not waited for.
func (l *Log) Close() error {
	err := ErrClosed
	l.once.Do(func() { err = l.close() })
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

func (l *Log) close() error {
	close(l.quit)
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for _, ended := range []chan struct{}{l.done, l.kept} {
		select {
		case <-ended:
		case <-limit.C:
			return fmt.Errorf("audit trail in %s: the disk has not answered for %v; the last records may be lost", l.Dir, patience)
		}
	}
	var err error
	if n := len(l.pending); n > 0 {
		err = fmt.Errorf("audit trail in %s: %d records of applications are lost: %w", l.Dir, n, l.failure)
	}
	return errors.Join(err, l.closeFiles())
}
