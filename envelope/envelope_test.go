package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

var tenant = map[string]string{"tenant": "a", "purpose": "mail"}

func newTestMessage(t testing.TB, context map[string]string) *Message {
	t.Helper()
	m, err := New("payments", wrapped("cn-hangzhou", "cn-shanghai"), dataKey(), context)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func seal(t testing.TB, m *Message, size int) []byte {
	t.Helper()
	sealed, err := m.Seal(pattern(size))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// open opens a whole message with the data key.
func open(message []byte, context map[string]string) ([]byte, error) {
	header, segments, err := Split(message)
	if err != nil {
		return nil, err
	}
	m, err := WithDataKey(header, dataKey(), context)
	if err != nil {
		return nil, err
	}
	return m.Open(segments)
}

// openStream is open, piece by piece.
func openStream(message []byte, context map[string]string) ([]byte, error) {
	src := iotest.OneByteReader(bytes.NewReader(message))
	header, err := ReadHeader(src)
	if err != nil {
		return nil, err
	}
	m, err := WithDataKey(header, dataKey(), context)
	if err != nil {
		return nil, err
	}
	r, err := m.NewReader(src)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// TestSizes: what is sealed in memory and as a stream opens as either.
func TestSizes(t *testing.T) {
	for _, size := range []int{0, 1, 15, 1024, firstFull - 1, firstFull, firstFull + 1, firstFull + SegmentSize - tagSize, firstFull + SegmentSize - tagSize + 1, 300_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			m := newTestMessage(t, tenant)
			var streamed bytes.Buffer
			w, err := m.NewWriter(&streamed)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(pattern(size)))); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			sealed := seal(t, m, size)
			if want := len(m.Header()) + size + Overhead(size); len(sealed) != want || streamed.Len() != want {
				t.Errorf("%d bytes in memory, %d as a stream, should be %d", len(sealed), streamed.Len(), want)
			}
			for _, message := range [][]byte{sealed, streamed.Bytes()} {
				for _, open := range []func([]byte, map[string]string) ([]byte, error){open, openStream} {
					if opened, err := open(message, tenant); err != nil || !bytes.Equal(opened, pattern(size)) {
						t.Errorf("%d bytes, %v", len(opened), err)
					}
				}
			}
		})
	}
}

// TestTruncation cuts a message at every border of a segment and beside it, and
// everywhere in its beginning.
func TestTruncation(t *testing.T) {
	m := newTestMessage(t, tenant)
	message := seal(t, m, 3*SegmentSize)
	var cuts []int
	for i := range len(m.Header()) + Overhead(0) + 1 {
		cuts = append(cuts, i)
	}
	for border := len(m.Header()) + SegmentSize; border < len(message); border += SegmentSize {
		cuts = append(cuts, border-1, border, border+1, border+tagSize, border-tagSize)
	}
	cuts = append(cuts, len(message)-tagSize, len(message)-1)
	for _, cut := range cuts {
		for i, open := range []func([]byte, map[string]string) ([]byte, error){open, openStream} {
			_, err := open(message[:cut], tenant)
			if want := cut < len(m.Header()); err == nil || errors.Is(err, ErrFormat) != want || errors.Is(err, ErrDamaged) == want {
				t.Errorf("cut after %d of %d bytes, way %d: %v", cut, len(message), i, err)
			}
		}
	}
	if _, err := open(append(bytes.Clone(message), 0), tenant); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte more: %v", err)
	}
}

// TestTampering changes every bit of a message, one after the other. In the header
// it is noticed before anything is decrypted.
func TestTampering(t *testing.T) {
	m := newTestMessage(t, tenant)
	message := seal(t, m, 20)
	for i := range message {
		for bit := range 8 {
			message[i] ^= 1 << bit
			_, err := open(message, tenant)
			inHeader := errors.Is(err, ErrFormat) || errors.Is(err, ErrCommitment)
			if header := i < len(m.Header()); err == nil || inHeader != header || errors.Is(err, ErrDamaged) == header {
				t.Errorf("bit %d of byte %d: %v", bit, i, err)
			}
			message[i] ^= 1 << bit
		}
	}
	if _, err := open(message, tenant); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// TestSegments: segments cannot change places, be repeated or left out.
func TestSegments(t *testing.T) {
	m := newTestMessage(t, tenant)
	message := seal(t, m, 4*SegmentSize)
	at := func(n int) []byte {
		segments := message[len(m.Header()):]
		return segments[n*SegmentSize : min((n+1)*SegmentSize, len(segments))]
	}
	for name, order := range map[string][]int{"swapped": {0, 2, 1, 3, 4}, "repeated": {0, 1, 1, 2, 3, 4}, "left out": {0, 2, 3, 4}, "last first": {4}} {
		changed := bytes.Clone(m.Header())
		for _, n := range order {
			changed = append(changed, at(n)...)
		}
		if _, err := open(changed, tenant); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestContext: another context is noticed before anything is decrypted, and gives
// another message key, so that a key handed out for a claimed context is worth
// nothing for the true one.
func TestContext(t *testing.T) {
	m := newTestMessage(t, tenant)
	message := seal(t, m, 20)
	header, segments, err := Split(message)
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]map[string]string{
		"none": nil, "less": {"tenant": "a"}, "more": {"tenant": "a", "purpose": "mail", "x": ""}, "value": {"tenant": "b", "purpose": "mail"},
		"shifted": {"tenan": "ta", "purpose": "mail"}, "swapped": {"a": "tenant", "mail": "purpose"},
	} {
		if _, err := open(message, other); !errors.Is(err, ErrCommitment) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := WithMessageKey(header, m.Key(), other); !errors.Is(err, ErrCommitment) {
			t.Errorf("%s, with the message key: %v", name, err)
		}
		h, err := Parse(header)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := build(h, dataKey(), other)
		if err != nil || bytes.Equal(forged.Key(), m.Key()) {
			t.Errorf("%s: the same message key, %v", name, err)
		}
		if _, err := forged.Open(segments); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s, with a commitment of its own: %v", name, err)
		}
	}
	empty := seal(t, newTestMessage(t, map[string]string{}), 1)
	if _, err := open(empty, nil); err != nil {
		t.Errorf("no context for an empty one: %v", err)
	}
	if _, err := New("k", wrapped("r"), dataKey(), map[string]string{"a": strings.Repeat("x", MaxContext)}); !errors.Is(err, ErrContext) {
		t.Errorf("a long context: %v", err)
	}
}

// TestKeys: a message opens with its own key alone, and commitments cannot be
// swapped between messages.
func TestKeys(t *testing.T) {
	a, b := newTestMessage(t, nil), newTestMessage(t, nil)
	if bytes.Equal(a.Key(), b.Key()) || bytes.Equal(a.Header(), b.Header()) {
		t.Error("two messages have the same key or ID")
	}
	if _, err := WithMessageKey(a.Header(), b.Key(), nil); !errors.Is(err, ErrCommitment) {
		t.Errorf("the key of another message: %v", err)
	}
	if _, err := WithDataKey(a.Header(), make([]byte, KeySize), nil); !errors.Is(err, ErrCommitment) {
		t.Errorf("another data key: %v", err)
	}
	swapped := append(bytes.Clone(a.Header()[:len(a.Header())-CommitmentSize]), b.Header()[len(b.Header())-CommitmentSize:]...)
	if _, err := WithDataKey(swapped, dataKey(), nil); !errors.Is(err, ErrCommitment) {
		t.Errorf("the commitment of another message: %v", err)
	}
	for _, short := range [][]byte{nil, make([]byte, 16), make([]byte, 33)} {
		if _, err := WithDataKey(a.Header(), short, nil); err == nil {
			t.Errorf("a data key of %d bytes", len(short))
		}
		if _, err := WithMessageKey(a.Header(), short, nil); err == nil {
			t.Errorf("a message key of %d bytes", len(short))
		}
	}
	if a.Wipe(); !bytes.Equal(a.Key(), make([]byte, KeySize)) {
		t.Error("the key is still there after Wipe")
	}
}

// TestLimits: what is too much is neither written nor read.
func TestLimits(t *testing.T) {
	many := make([]string, MaxWrappedKeys+1)
	for i := range many {
		many[i] = fmt.Sprintf("region-%d", i)
	}
	long := wrapped("a", "b", "c")
	for i := range long {
		long[i].CiphertextBlob = strings.Repeat("x", maxBlob)
	}
	for name, h := range map[string]Header{
		"no name": {WrappedKeys: wrapped("a")}, "long name": {Key: strings.Repeat("k", maxName+1), WrappedKeys: wrapped("a")},
		"blank": {Key: "a b", WrappedKeys: wrapped("a")}, "not ASCII": {Key: "ä", WrappedKeys: wrapped("a")},
		"no keys": {Key: "k"}, "many keys": {Key: "k", WrappedKeys: wrapped(many...)}, "twice": {Key: "k", WrappedKeys: wrapped("a", "a")},
		"long header": {Key: "k", WrappedKeys: long}, "long blob": {Key: "k", WrappedKeys: []WrappedKey{{"a", "b", strings.Repeat("x", maxBlob+1)}}},
		"no blob": {Key: "k", WrappedKeys: []WrappedKey{{"a", "b", ""}}},
	} {
		if raw, err := h.uncommitted(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: a header of %d bytes, %v", name, len(raw), err)
		}
	}
}

// TestSourceErrors: a source that fails is told apart from a message that is
// damaged, and an error stays.
func TestSourceErrors(t *testing.T) {
	m := newTestMessage(t, nil)
	message := seal(t, m, 2*SegmentSize)
	broken := errors.New("the disk is gone")
	for _, n := range []int{len(m.Header()), len(m.Header()) + 10, len(m.Header()) + SegmentSize + 5} {
		src := io.MultiReader(bytes.NewReader(message[len(m.Header()):n]), iotest.ErrReader(broken))
		r, err := m.NewReader(src)
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, broken) || errors.Is(err, ErrDamaged) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	message[len(message)-1] ^= 1
	r, err := m.NewReader(bytes.NewReader(message[len(m.Header()):]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, ErrDamaged) {
		t.Errorf("the first time: %v", err)
	}
	if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, ErrDamaged) {
		t.Errorf("the second time: %d bytes, %v", n, err)
	}
}
