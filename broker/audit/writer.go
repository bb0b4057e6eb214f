package audit

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	retryDelay   = time.Second // after a failure
	rotateRetry  = time.Minute // after a rotation that failed
	housekeeping = time.Minute
)

func isOwn(action string) bool { return strings.HasPrefix(action, ownActions) }

// gap counts what could not be recorded.
type gap struct {
	from                time.Time
	refused, unrecorded uint64
}

// add counts one more.
func (g *gap) add(count *uint64) {
	if g.refused+g.unrecorded == 0 {
		g.from = time.Now()
	}
	*count++
}

func (g *gap) event() Event {
	return Event{Action: LogGap, Outcome: Failed, Details: map[string]string{
		DetailFrom:       g.from.UTC().Format(timeLayout),
		DetailUntil:      time.Now().UTC().Format(timeLayout),
		DetailRefused:    strconv.FormatUint(g.refused, 10),
		DetailUnrecorded: strconv.FormatUint(g.unrecorded, 10),
	}}
}

// run is the writer. Whoever waits while it waits for the disk is in the next
// batch, so that many callers share one fsync; those who do not wait share one
// with all that come within CommitDelay.
func (l *Log) run() {
	defer close(l.done)
	timer := time.NewTimer(l.pause())
	defer timer.Stop()
	for {
		closing := false
		select {
		case <-l.wake:
			if !l.isUrgent() {
				timer.Reset(l.CommitDelay)
				continue
			}
		case <-timer.C:
		case <-l.quit:
			closing = true
		}
		l.turn(closing)
		if closing {
			return
		}
		timer.Reset(l.pause())
	}
}

func (l *Log) isUrgent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.urgent
}

// pause is how long the writer may rest if nobody needs it.
func (l *Log) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failure != nil || l.short != nil:
		return retryDelay
	case len(l.pending) > 0:
		return l.CommitDelay
	default:
		return min(housekeeping, l.SegmentAge)
	}
}

// turn writes all that is pending. What has been answered already is kept after a
// failure and written with the next turn; the others learn of the failure.
func (l *Log) turn(closing bool) {
	l.mu.Lock()
	batch := l.pending
	l.pending, l.urgent, l.busy, l.closed = nil, false, time.Now(), closing
	l.mu.Unlock()

	l.refill()
	gap := l.takeGap()
	own := l.ownEntries(gap, closing)
	err := l.commit(append(own, batch...))
	if l.finish(own, batch, gap, err) {
		l.logChange(err)
	}
	if err == nil && slices.ContainsFunc(batch, func(e entry) bool { return e.admin }) {
		signal(l.moved)
	}
	for _, e := range batch {
		if e.result != nil {
			e.result <- err
		}
		if e.placed && (e.result != nil || err == nil) {
			<-l.places
		}
	}
}

// takeGap returns what was not recorded, once it is over.
func (l *Log) takeGap() gap {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.short != nil || l.gap.refused+l.gap.unrecorded == 0 {
		return gap{}
	}
	taken := l.gap
	l.gap = gap{}
	return taken
}

// ownEntries are the records that the trail makes of itself.
func (l *Log) ownEntries(g gap, all bool) []entry {
	now := time.Now()
	events := l.denials.summaries(now, all)
	if g.refused+g.unrecorded > 0 {
		events = append([]Event{g.event()}, events...)
	}
	entries := make([]entry, 0, len(events)+1)
	for _, e := range events {
		if data, err := encode(e); err == nil { // nothing in it comes from outside
			entries = append(entries, entry{event: data, at: now})
		}
	}
	return entries
}

// finish notes how a batch ended, and reports whether that is news. Nothing is logged
// under the lock: a log that blocks must not hold up those who ask how things are.
func (l *Log) finish(own, batch []entry, g gap, err error) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = time.Time{}
	news = (err == nil) != (l.failure == nil)
	l.failure = err
	if err == nil {
		return news
	}
	l.stats.Failures++
	if g.refused+g.unrecorded > 0 { // its entry is the first, and made anew
		own = own[1:]
		g.refused += l.gap.refused
		g.unrecorded += l.gap.unrecorded
		l.gap = g
	}
	kept := own
	for _, e := range batch {
		if e.result == nil {
			kept = append(kept, e)
		}
	}
	l.pending = append(kept, l.pending...)
	return news
}

func (l *Log) logChange(err error) {
	if err != nil {
		l.Logger.Error("audit trail cannot be written", "dir", l.Dir, "error", err)
		return
	}
	l.Logger.Info("audit trail is written again", "dir", l.Dir)
}

// refill takes the reserve back.
func (l *Log) refill() {
	err := l.reserve.fill()
	if err != nil {
		err = errors.Join(errors.New("the disk has no room for the audit trail's reserve"), err)
	}
	l.setShort(err)
}

func (l *Log) setShort(err error) {
	l.mu.Lock()
	news := (err == nil) != (l.short == nil)
	l.short = err
	l.mu.Unlock()
	if news {
		l.logShort(err)
	}
}

func (l *Log) logShort(err error) {
	if err != nil {
		l.Logger.Error("audit trail is short of space", "dir", l.Dir, "error", err)
		return
	}
	l.Logger.Info("audit trail has space again", "dir", l.Dir)
}

// commit writes entries as the next lines and waits for the disk. All or none of
// them are in the trail afterwards.
func (l *Log) commit(entries []entry) error {
	for {
		err := l.attempt(entries)
		if !isFull(err) || !l.reserve.give() {
			return err
		}
		l.setShort(err)
	}
}

func (l *Log) attempt(entries []entry) error {
	if err := l.rotate(time.Now()); err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	head := l.head
	lines := l.lines[:0]
	for _, e := range entries {
		begin := len(lines)
		lines = head.appendNext(lines, e.at, e.event)
		head = head.after(lines[begin:])
		lines = append(lines, '\n')
	}
	l.lines = lines
	if err := l.segment.write(lines); err != nil {
		return err
	}
	l.advance(head, len(entries), len(lines))
	return nil
}

// advance publishes a head that is on the disk.
func (l *Log) advance(head Head, records, bytes int) {
	l.mu.Lock()
	l.head = head
	l.stats.Commits++
	l.stats.Records += uint64(records)
	l.stats.Bytes += uint64(bytes)
	l.mu.Unlock()
}

// rotate seals the segment and begins the next when it is time. A segment that
// cannot be sealed is written on; one that is sealed must have a successor.
func (l *Log) rotate(now time.Time) error {
	s := l.segment
	if s.next == nil {
		if !l.rotationDue(now) {
			return nil
		}
		if err := l.seal(now); err != nil {
			l.Logger.Warn("audit segment not sealed", "segment", s.path, "error", err)
			l.rotateAt = now.Add(rotateRetry)
			return nil
		}
	}
	if err := promoteKey(l.Dir); err != nil {
		return err
	}
	next, head, err := beginSegment(l.Dir, l.head, s.next, now, openEvent(s.next))
	if err != nil {
		return err
	}
	l.segment = next
	l.advance(head, 1, int(next.size))
	signal(l.moved)
	return s.end()
}

func (l *Log) rotationDue(now time.Time) bool {
	s := l.segment
	old := s.size >= l.SegmentSize || now.Sub(s.opened) >= l.SegmentAge
	return old && l.head.Seq > s.first && now.After(l.rotateAt)
}

func (l *Log) seal(now time.Time) error {
	next, err := makeKey(l.Dir, nextKeyName, l.random)
	if err != nil {
		return err
	}
	line, err := sealLine(l.head, now, l.segment.key, next)
	if err != nil {
		return err
	}
	if err := l.segment.write(append(line, '\n')); err != nil {
		return err
	}
	l.segment.next = next
	l.advance(l.head.after(line), 1, len(line)+1)
	return nil
}
