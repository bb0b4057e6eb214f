package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// Summary is what Verify found.
type Summary struct {
	Records     uint64
	First, Last time.Time // of the first and last record
	Head        string    // hash of the last line, to compare with Log.Head
}

// ChainError names the first line at which a log is not what was written.
type ChainError struct {
	Line   int // from 1
	Reason string
}

func (e *ChainError) Error() string { return fmt.Sprintf("line %d %s", e.Line, e.Reason) }

// Verify reads a whole log and recomputes its chain. A broken chain is a
// *ChainError; the Summary is then of what was read before it. The last line is
// vouched for by nothing but Summary.Head.
func Verify(r io.Reader) (Summary, error) {
	var s Summary
	head := origin
	lines := bufio.NewReaderSize(r, maxLine+1)
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return s, nil
		case errors.Is(err, io.EOF):
			return s, &ChainError{number, "is torn: it does not end in a newline"}
		case errors.Is(err, bufio.ErrBufferFull):
			return s, &ChainError{number, "is longer than any record"}
		case err != nil:
			return s, err
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		rec, err := decode(line)
		switch {
		case err != nil:
			return s, &ChainError{number, err.Error()}
		case rec.Seq != head.seq+1:
			return s, &ChainError{number, fmt.Sprintf("is record %d, where record %d belongs", rec.Seq, head.seq+1)}
		case rec.Prev != head.hash && head.seq == 0:
			return s, &ChainError{number, "is not the beginning of a log"}
		case rec.Prev != head.hash:
			// This line knew the one before it by another hash.
			return s, &ChainError{number - 1, fmt.Sprintf("is not the line that line %d was written after", number)}
		}
		head = head.after(line)
		at, _ := time.Parse(timeLayout, rec.Time) // decode has tried
		if s.Records++; s.Records == 1 {
			s.First = at
		}
		s.Last, s.Head = at, head.hash
	}
}
