package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"
)

// tink returns Tink's primitive. Only the last segment may be short, so for a
// message that is known to fit into a shorter one the result is the same, and
// Tink's buffers are as small.
func (m *Message) tink(segment int) (*subtle.AESGCMHKDF, error) {
	return subtle.NewAESGCMHKDF(m.key, "SHA256", KeySize, segment, 0)
}

// NewWriter returns a writer whose Close ends the message in dst, which it does
// not close. The header is written at once. What is not closed does not open.
func (m *Message) NewWriter(dst io.Writer) (io.WriteCloser, error) {
	return m.newWriter(dst, SegmentSize)
}

func (m *Message) newWriter(dst io.Writer, segment int) (io.WriteCloser, error) {
	if _, err := dst.Write(m.header); err != nil {
		return nil, err
	}
	primitive, err := m.tink(segment)
	if err != nil {
		return nil, err
	}
	return primitive.NewEncryptingWriter(dst, m.associated)
}

// NewReader returns a reader of the plaintext; src is behind the header. Every
// byte that it returns is verified. That the message is whole is known when it
// returns io.EOF, and not before: with any other error, what was read is to be
// thrown away. Failures other than those of src are ErrDamaged, and they stay.
func (m *Message) NewReader(src io.Reader) (io.Reader, error) {
	return m.newReader(src, SegmentSize)
}

func (m *Message) newReader(src io.Reader, segment int) (io.Reader, error) {
	primitive, err := m.tink(segment)
	if err != nil {
		return nil, err
	}
	r := &plaintext{source: source{src: src}}
	if r.tink, err = primitive.NewDecryptingReader(&r.source, m.associated); err != nil {
		return nil, r.explain(err)
	}
	return r, nil
}

// plaintext makes two errors out of Tink's many, and keeps the first. Tink itself
// says io.EOF after a last segment that failed.
type plaintext struct {
	source source
	tink   io.Reader
	err    error
}

// Read implements io.Reader.
func (r *plaintext) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.tink.Read(p)
	if err != nil {
		r.err = r.explain(err)
	}
	return n, r.err
}

func (r *plaintext) explain(err error) error {
	switch {
	case r.source.err != nil:
		return r.source.err
	case r.tink != nil && errors.Is(err, io.EOF):
		return io.EOF
	default:
		return fmt.Errorf("%w: %w", ErrDamaged, opaque{err})
	}
}

// opaque keeps the text of an error and not its identity: an end that comes too
// early must not look like one that is in order.
type opaque struct{ err error }

func (o opaque) Error() string { return o.err.Error() }

// source remembers an error of its own.
type source struct {
	src io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// Seal makes a whole message in memory.
func (m *Message) Seal(plaintext []byte) ([]byte, error) {
	message := bytes.NewBuffer(make([]byte, 0, len(m.header)+len(plaintext)+Overhead(len(plaintext))))
	w, err := m.newWriter(message, segmentFor(len(plaintext)+Overhead(0)))
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plaintext); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return message.Bytes(), nil
}

// Open returns the plaintext of a whole message, given what is behind its header.
func (m *Message) Open(segments []byte) ([]byte, error) {
	r, err := m.newReader(bytes.NewReader(segments), segmentFor(len(segments)))
	if err != nil {
		return nil, err
	}
	plaintext := bytes.NewBuffer(make([]byte, 0, len(segments)+bytes.MinRead))
	if _, err := plaintext.ReadFrom(r); err != nil {
		clear(plaintext.Bytes())
		return nil, err
	}
	return plaintext.Bytes(), nil
}

// segmentFor is how long segments have to be taken for a message of so many bytes
// of Tink's. It refuses to make one that is only a header.
func segmentFor(ciphertext int) int { return min(SegmentSize, max(ciphertext, Overhead(0))+1) }
