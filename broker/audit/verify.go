package audit

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// VerifyOptions say what is known of a trail from elsewhere.
type VerifyOptions struct {
	// From is the first record to look at, which must be the first of a segment:
	// where a trail begins again, or whose past is kept elsewhere. 0 is 1.
	From uint64
	// Anchors are heads that were seen earlier. The records up to each of them are
	// then known to be what they were.
	Anchors []Head
}

// Summary is what Verify found.
type Summary struct {
	Records     uint64
	Segments    int
	First, Last time.Time // of the first and last record
	Begin, Head Head      // the first and the last record
	// Sealed is the last record that a signature covers; 0 if there is none yet.
	Sealed uint64
	// Gaps is how many LogGap records there are, each of a time in which calls could
	// not be recorded.
	Gaps int
	// Torn is how many bytes follow the last whole line: of a record that was not
	// acknowledged, or is being written.
	Torn int
}

// BadRecord names the first record that is not what was written.
type BadRecord struct {
	Seq    uint64
	File   string // empty if there is none
	Line   int    // in File, from 1
	Reason string
}

func (e *BadRecord) Error() string {
	if e.File == "" {
		return fmt.Sprintf("record %d %s", e.Seq, e.Reason)
	}
	return fmt.Sprintf("record %d (%s line %d) %s", e.Seq, e.File, e.Line, e.Reason)
}

// Verify reads the trail in dir, recomputes its chain and checks the signatures
// of its epochs. A trail that is not whole is a *BadRecord; the Summary is then of
// what was read before. The records after Summary.Sealed are vouched for by
// nothing but an anchor.
func Verify(dir string, options VerifyOptions) (Summary, error) {
	segments, err := listSegments(dir)
	if err != nil {
		return Summary{}, err
	}
	for len(segments) > 0 && segments[0].first < options.From {
		segments = segments[1:]
	}
	v := &verifier{anchors: map[uint64]Head{}, from: max(options.From, 1), head: origin}
	for _, a := range options.Anchors {
		if a.Seq < v.from {
			return Summary{}, fmt.Errorf("the anchor at record %d is before record %d, where the check begins", a.Seq, v.from)
		}
		v.anchors[a.Seq] = a
	}
	for i, s := range segments {
		if err := v.segment(s, i == len(segments)-1); err != nil {
			return v.summary, err
		}
	}
	return v.summary, v.end()
}

// verifier reads a trail from its beginning to its end.
type verifier struct {
	from    uint64
	anchors map[uint64]Head
	summary Summary

	head   Head              // of the record before
	at     place             // of the record before
	key    ed25519.PublicKey // of the epoch
	next   string            // public key that the record before announced
	broken *broken
}

// place is where a record stands.
type place struct {
	file string
	line int
}

func (p place) bad(seq uint64, format string, args ...any) error {
	return &BadRecord{seq, p.file, p.line, fmt.Sprintf(format, args...)}
}

// broken are two records that do not follow each other. Which of them was changed
// is only known when something vouches for the second.
type broken struct {
	first, second place
	head          Head // after the second
}

func (v *verifier) segment(s segmentFile, last bool) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := newLineReader(f)
	v.summary.Segments++
	for number := 1; ; number++ {
		at := place{filepath.Base(s.path), number}
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF) && (number > 1 || last) && (last || len(lines.partial) == 0):
			v.summary.Torn = len(lines.partial)
			return nil
		case errors.Is(err, io.EOF):
			return v.bad(at, "is unfinished: its line does not end")
		case errors.Is(err, errLong):
			return v.bad(at, "%v", err)
		case err != nil:
			return err
		}
		if err := v.record(at, line, number == 1 && s.first != v.head.Seq+1, s.first); err != nil {
			return err
		}
	}
}

// bad names the record that comes next, unless the two before it are broken.
func (v *verifier) bad(at place, format string, args ...any) error {
	if v.broken != nil {
		return v.broken.unclear()
	}
	return at.bad(v.head.Seq+1, format, args...)
}

// record takes the next line.
func (v *verifier) record(at place, line []byte, jump bool, first uint64) error {
	r, err := decode(line)
	switch {
	case err != nil:
		return v.bad(at, "%v", err)
	case v.broken != nil:
		return v.broken.judge(r.Prev == v.broken.head.Hash)
	case jump && v.summary.Records == 0 && first == v.from && r.Seq == first:
		v.head = Head{Seq: r.Seq - 1, Hash: r.Prev}
	case jump && first > v.head.Seq+1:
		return &BadRecord{Seq: max(v.head.Seq+1, v.from), Reason: missing(&v.summary, first, &r)}
	case r.Seq != v.head.Seq+1:
		return v.bad(at, "is not there: its place has record %d", r.Seq)
	}
	if r.Prev != v.head.Hash && v.head.Seq == 0 {
		return at.bad(r.Seq, "is not the beginning of a trail")
	}
	follows := r.Prev == v.head.Hash
	if !follows {
		v.broken = &broken{v.at, at, v.head.after(line)}
	}
	if err := v.epoch(at, line, &r, follows); err != nil {
		return err
	}
	v.head, v.at = v.head.after(line), at
	if anchor, ok := v.anchors[v.head.Seq]; ok {
		if err := v.anchor(at, anchor); err != nil {
			return err
		}
	}
	if v.broken == nil {
		v.count(&r)
	}
	return nil
}

func missing(s *Summary, first uint64, r *Record) string {
	switch {
	case r.Action == LogOpen && r.Outcome == Failed:
		return fmt.Sprintf("is missing; record %d, where the trail goes on, gives the reason %s (--from %d checks what follows)", first, r.Reason, first)
	case s.Records == 0:
		return fmt.Sprintf("is missing: the trail here begins with record %d (--from %d if the rest is kept elsewhere)", first, first)
	default:
		return fmt.Sprintf("is missing: the next one here is record %d", first)
	}
}

// epoch checks what makes a segment an epoch: it begins with the key that the one
// before announced, and ends with a signature.
func (v *verifier) epoch(at place, line []byte, r *Record, follows bool) error {
	begins := at.line == 1
	switch {
	case begins != (r.Action == LogOpen):
		return v.bad(at, "is not where it belongs: %s is the first record of a segment and only that", LogOpen)
	case begins && v.summary.Records > 0 && v.next == "" && follows:
		return v.bad(at, "begins an epoch that the one before does not vouch for: %s", r.Reason)
	case begins && v.next != "" && v.next != r.Details[DetailPublicKey]:
		return v.bad(at, "begins an epoch with another key than the one before announced")
	case !begins && v.next != "":
		return v.bad(at, "follows the seal of its epoch")
	case r.Action != LogSeal && r.Signature != "":
		return v.bad(at, "has a signature but is not a seal")
	}
	v.next = ""
	switch r.Action {
	case LogOpen:
		key, ok := parsePublic(r.Details[DetailPublicKey])
		if !ok || r.Details[DetailFormat] != format {
			return v.bad(at, "begins no epoch that this program understands")
		}
		v.key = key
	case LogSeal:
		sealed := sealedBy(line, r, v.key)
		switch {
		case v.broken != nil: // the signature vouches for what it follows
			return v.broken.judge(sealed)
		case !sealed:
			return v.bad(at, "is not signed with the key of its epoch: it or records of that epoch were changed")
		}
		v.next, v.summary.Sealed = r.Details[DetailNextPublicKey], r.Seq
	}
	return nil
}

func (v *verifier) anchor(at place, anchor Head) error {
	delete(v.anchors, anchor.Seq)
	switch same := v.head == anchor; {
	case v.broken != nil:
		return v.broken.judge(same)
	case !same:
		return at.bad(anchor.Seq, "is not the one of the anchor: it, or one between record %d and it, was changed", v.summary.Sealed)
	}
	return nil
}

func (v *verifier) count(r *Record) {
	s := &v.summary
	if s.Records++; s.Records == 1 {
		s.First, s.Begin = r.At(), v.head
	}
	s.Last, s.Head = r.At(), v.head
	if r.Action == LogGap {
		s.Gaps++
	}
}

// end checks that nothing is known of later records.
func (v *verifier) end() error {
	if v.broken != nil {
		return v.broken.unclear()
	}
	for seq := range v.anchors {
		return &BadRecord{Seq: max(v.head.Seq+1, v.from), Reason: fmt.Sprintf("is missing: the trail ends before the anchor at record %d", seq)}
	}
	if v.summary.Records == 0 {
		return errors.New("there is no audit trail, or none from there on")
	}
	return nil
}

// judge names the bad one of two records when it is known whether the second is
// what was written.
func (b *broken) judge(second bool) error {
	if second {
		return b.first.bad(b.head.Seq-1, "was changed: it is not the one that record %d was written after", b.head.Seq)
	}
	return b.second.bad(b.head.Seq, "was changed: it follows another record than %d", b.head.Seq-1)
}

func (b *broken) unclear() error {
	return b.first.bad(b.head.Seq-1, "or record %d was changed: they do not follow each other", b.head.Seq)
}
