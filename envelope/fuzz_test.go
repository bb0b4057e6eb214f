package envelope

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzParse: what is accepted is exactly what is written.
func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		message, _, _ := v.read(f)
		header, _, err := Split(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := h.uncommitted()
		if err != nil || !bytes.Equal(append(again, h.Commitment[:]...), raw) {
			t.Fatalf("%x is read as %+v and written as %x, %v", raw, h, again, err)
		}
		read, err := ReadHeader(bytes.NewReader(append(bytes.Clone(raw), 1, 2, 3)))
		if err != nil || !bytes.Equal(read, raw) {
			t.Fatalf("ReadHeader: %x, %v", read, err)
		}
	})
}

// FuzzOpen: nothing opens but what was sealed, and both ways agree.
func FuzzOpen(f *testing.F) {
	genuine := map[string][]byte{}
	for _, v := range vectors(f) {
		if message, _, _ := v.read(f); len(v.Context) == 0 {
			genuine[string(message)] = pattern(v.Size)
			f.Add(message)
		}
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		whole, wholeErr := open(message, nil)
		streamed, streamErr := openStream(message, nil)
		if (wholeErr == nil) != (streamErr == nil) || wholeErr == nil && !bytes.Equal(whole, streamed) {
			t.Fatalf("at once: %v, as a stream: %v", wholeErr, streamErr)
		}
		if wholeErr == nil && !bytes.Equal(genuine[string(message)], whole) {
			t.Fatalf("%x opens to %x", message, whole)
		}
		for _, err := range []error{wholeErr, streamErr} {
			if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrCommitment) && !errors.Is(err, ErrDamaged) {
				t.Fatalf("an error of another kind: %v", err)
			}
		}
	})
}
