package envelope

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// MaxContext bounds the names and values of an encryption context together, in
// bytes. KMS takes as many.
const MaxContext = 8192

// canonical writes an encryption context so that every context has one text and
// every text one context: how many entries there are, and each with its lengths,
// ordered by the bytes of their names. No context and an empty one are the same.
func canonical(context map[string]string) ([]byte, error) {
	size := 0
	for name, value := range context {
		size += len(name) + len(value)
	}
	if size > MaxContext || len(context) > MaxContext {
		return nil, fmt.Errorf("%w: %d entries of %d bytes, at most %d bytes are possible", ErrContext, len(context), size, MaxContext)
	}
	text := binary.BigEndian.AppendUint16(make([]byte, 0, 2+4*len(context)+size), uint16(len(context)))
	for _, name := range slices.Sorted(maps.Keys(context)) {
		text = appendLong(appendLong(text, name), context[name])
	}
	return text, nil
}

// appendLong appends a text of up to 65535 bytes after its length.
func appendLong(to []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(to, uint16(len(text))), text...)
}

// appendShort appends a text of up to 255 bytes after its length.
func appendShort(to []byte, text string) []byte {
	return append(append(to, byte(len(text))), text...)
}
