package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// TornName is the file that keeps what crashes left of unfinished lines.
const TornName = "audit.torn"

// oldName was the whole trail before there were segments.
const oldName = "audit.log"

// recover finds the end of the trail, and continues it or begins anew.
func (l *Log) recover() error {
	if err := syscall.Flock(int(l.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process writes to it: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(l.Dir, oldName)); err == nil {
		return fmt.Errorf("%s is a trail of an older format: move it away and keep it", oldName)
	}
	if err := os.Remove(filepath.Join(l.Dir, newSegment)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	known, err := l.Registry.AuditHead()
	if err != nil {
		return err
	}
	segments, err := listSegments(l.Dir)
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		return l.begin(origin, known)
	}
	last := segments[len(segments)-1]
	end, err := readSegment(last, known.Seq)
	if err != nil {
		return fmt.Errorf("%s is damaged: %w: move the file away and keep it; the gap will be recorded", last.path, err)
	}
	return l.resume(last, end, known)
}

// begin starts a trail that has no past, or whose past is not there.
func (l *Log) begin(head, known Head) error {
	if known.Seq > head.Seq {
		return l.breakOff(head, known, ReasonMissing)
	}
	key, err := makeKey(l.Dir, keyName, l.random)
	if err != nil {
		return err
	}
	l.segment, l.head, err = beginSegment(l.Dir, head, key, time.Now(), openEvent(key))
	return err
}

// resume continues after the end of the last segment.
func (l *Log) resume(file segmentFile, end *segmentEnd, known Head) error {
	if len(end.torn) > 0 {
		if err := saveTorn(l.Dir, end.torn); err != nil {
			return err
		}
		note := tornEvent(end.torn)
		l.note = &note
	}
	switch {
	case known.Seq > end.head.Seq:
		return errors.Join(os.Truncate(file.path, end.size), l.breakOff(end.head, known, ReasonMissing))
	case known.Seq == end.known.Seq && known != end.known:
		return errors.Join(os.Truncate(file.path, end.size), l.breakOff(end.head, end.head, ReasonChanged))
	}
	s := &segment{path: file.path, first: file.first, opened: end.opened}
	var err error
	if s.key, err = findKey(l.Dir, end.public, end.sealed); err != nil {
		return err
	}
	switch {
	case s.key == nil:
		return errors.Join(os.Truncate(file.path, end.size), l.breakOff(end.head, end.head, ReasonKeyLost))
	case end.sealed:
		if err := promoteKey(l.Dir); err != nil {
			return err
		}
		l.segment, l.head, err = beginSegment(l.Dir, end.head, s.key, time.Now(), openEvent(s.key))
		return err
	}
	if err := errors.Join(wipe(filepath.Join(l.Dir, nextKeyName)), s.open()); err != nil {
		return err
	}
	s.size, s.torn = end.size, len(end.torn) > 0
	l.segment, l.head = s, end.head
	return nil
}

// breakOff begins a segment that says why it does not continue the one that ends
// with last. Whatever the registry knows of is not numbered again.
func (l *Log) breakOff(last, known Head, reason string) error {
	l.Logger.Error("audit trail does not continue", "reason", reason, "last", last.String(), "registry", known.String())
	if err := wipe(filepath.Join(l.Dir, nextKeyName)); err != nil {
		return err
	}
	key, err := makeKey(l.Dir, keyName, l.random)
	if err != nil {
		return err
	}
	opening := openEvent(key)
	opening.Outcome, opening.Reason = Failed, reason
	if reason == ReasonMissing {
		opening.Details[DetailMissingFrom] = strconv.FormatUint(last.Seq+1, 10)
		opening.Details[DetailMissingUntil] = strconv.FormatUint(known.Seq, 10)
	}
	l.segment, l.head, err = beginSegment(l.Dir, known, key, time.Now(), opening)
	return err
}

// findKey returns the private key of public, nil when it is not there. That of an
// epoch which has only been announced may still be under its first name.
func findKey(dir, public string, announced bool) (key []byte, err error) {
	names := []string{keyName}
	if announced {
		names = append(names, nextKeyName)
	}
	for _, name := range names {
		key, err := readKey(dir, name)
		if err != nil {
			return nil, err
		}
		if key != nil && publicHex(key) == public {
			return key, nil
		}
	}
	return nil, nil
}

// segmentEnd is what must be known of a segment to continue it.
type segmentEnd struct {
	opened time.Time
	head   Head
	known  Head   // the head at the number that was asked for; zero if that is elsewhere
	public string // of the epoch that follows if sealed, otherwise of this one
	sealed bool
	size   int64
	torn   []byte // bytes after the last newline, which a crash left
}

// readSegment reads a whole segment and checks its chain. A crash can leave one
// unfinished line at the end.
func readSegment(file segmentFile, wanted uint64) (*segmentEnd, error) {
	f, err := os.Open(file.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	end := &segmentEnd{}
	lines := newLineReader(f)
	for number := 1; ; number++ {
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF) && number > 1:
			end.torn = lines.partial
			return end, nil
		case err != nil:
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		r, err := decode(line)
		if err == nil {
			err = end.add(file, line, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d %w", number, err)
		}
		if end.head.Seq == wanted {
			end.known = end.head
		}
	}
}

// add takes the next line of the segment.
func (end *segmentEnd) add(file segmentFile, line []byte, r *Record) error {
	switch {
	case end.size == 0 && (r.Action != LogOpen || r.Seq != file.first):
		return errors.New("does not begin this segment")
	case end.size == 0:
		end.opened, end.public = r.At(), r.Details[DetailPublicKey]
		end.head = Head{Seq: r.Seq - 1, Hash: r.Prev}
	case end.sealed:
		return errors.New("follows the end of the epoch")
	case r.Seq != end.head.Seq+1 || r.Prev != end.head.Hash:
		return errors.New("does not follow the line before it")
	case r.Action == LogSeal:
		end.sealed, end.public = true, r.Details[DetailNextPublicKey]
	}
	end.head = end.head.after(line)
	end.size += int64(len(line)) + 1
	return nil
}

// saveTorn keeps torn bytes for whoever wants to know what was lost.
func saveTorn(dir string, torn []byte) error {
	file, err := os.OpenFile(filepath.Join(dir, TornName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(bytes.Clone(torn), '\n'))
	return errors.Join(err, file.Sync(), file.Close(), syncDir(dir))
}

func tornEvent(torn []byte) Event {
	sum := sha256.Sum256(torn)
	return Event{Action: LogRepair, Outcome: Done, Details: map[string]string{
		DetailTornBytes:  strconv.Itoa(len(torn)),
		DetailTornSHA256: hex.EncodeToString(sum[:]),
	}}
}
