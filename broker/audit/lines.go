package audit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

var errLong = errors.New("is longer than any record")

// lineReader reads whole lines of a file that may still grow.
type lineReader struct {
	buffered *bufio.Reader
	partial  []byte
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{buffered: bufio.NewReaderSize(r, maxLine)}
}

// next returns a line without its newline, valid until the next call. io.EOF:
// there is no whole line yet, and partial is what there is of one.
func (l *lineReader) next() ([]byte, error) {
	if bytes.HasSuffix(l.partial, []byte("\n")) {
		l.partial = l.partial[:0]
	}
	for {
		chunk, err := l.buffered.ReadSlice('\n')
		l.partial = append(l.partial, chunk...)
		switch {
		case len(l.partial) > maxLine+1:
			return nil, errLong
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return nil, err
		default:
			return l.partial[:len(l.partial)-1], nil
		}
	}
}
