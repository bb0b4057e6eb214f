package envelope

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Limits of a header.
const (
	MaxHeader      = 8 << 10 // bytes
	MaxWrappedKeys = 8
	maxName        = 64      // bytes of a key's name, a region or a CMK's ID
	maxBlob        = 4 << 10 // bytes
)

const magic = "KMSE"

// fixed is the beginning of a header: magic, version, suite and its length.
const fixed = len(magic) + 1 + 1 + 2

// Header says what opens a message.
type Header struct {
	MessageID [MessageIDSize]byte
	Key       string // the broker's name of the key
	// WrappedKeys are the same data key under several CMKs, at least one, each in
	// another region.
	WrappedKeys []WrappedKey
	Commitment  [CommitmentSize]byte
}

// WrappedKey is a data key as KMS encrypted it.
type WrappedKey struct {
	Region         string
	KeyID          string // the CMK
	CiphertextBlob string // base64, opaque, as KMS made it
}

// Check refuses what cannot be in a header.
func (k WrappedKey) Check() error {
	return cmp.Or(checkText("region", k.Region, maxName), checkText("ID of the CMK", k.KeyID, maxName),
		checkText("ciphertext blob", k.CiphertextBlob, maxBlob))
}

// uncommitted writes a header without its commitment.
func (h *Header) uncommitted() ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	raw := append(make([]byte, 0, MaxHeader/8), magic...)
	raw = append(raw, Version, Suite, 0, 0)
	raw = appendShort(append(raw, h.MessageID[:]...), h.Key)
	raw = append(raw, byte(len(h.WrappedKeys)))
	for _, k := range h.WrappedKeys {
		raw = appendLong(appendShort(appendShort(raw, k.Region), k.KeyID), k.CiphertextBlob)
	}
	length := len(raw) + CommitmentSize
	if length > MaxHeader {
		return nil, fmt.Errorf("%w: a header of %d bytes, at most %d are possible", ErrFormat, length, MaxHeader)
	}
	binary.BigEndian.PutUint16(raw[fixed-2:], uint16(length))
	return raw, nil
}

// check holds what is written and what was read to the same limits.
func (h *Header) check() error {
	if err := checkText("name of the key", h.Key, maxName); err != nil {
		return err
	}
	if n := len(h.WrappedKeys); n == 0 || n > MaxWrappedKeys {
		return fmt.Errorf("%w: %d wrapped keys, 1 to %d are possible", ErrFormat, n, MaxWrappedKeys)
	}
	for i, k := range h.WrappedKeys {
		if err := k.Check(); err != nil {
			return err
		}
		if slices.ContainsFunc(h.WrappedKeys[:i], func(other WrappedKey) bool { return other.Region == k.Region }) {
			return fmt.Errorf("%w: two wrapped keys in region %s", ErrFormat, k.Region)
		}
	}
	return nil
}

// checkText refuses what is empty, too long or not of printable ASCII without
// blanks.
func checkText(what, text string, most int) error {
	if text == "" || len(text) > most || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%w: the %s is not 1 to %d printable characters", ErrFormat, what, most)
	}
	return nil
}

// Parse reads a whole header and nothing more. It accepts exactly what this
// package writes.
func Parse(raw []byte) (*Header, error) {
	length, err := headerLength(raw)
	if err != nil {
		return nil, err
	}
	if length != len(raw) {
		return nil, fmt.Errorf("%w: the header says that it has %d bytes, there are %d", ErrFormat, length, len(raw))
	}
	r := reader{rest: raw[fixed:]}
	var h Header
	copy(h.MessageID[:], r.take(MessageIDSize))
	h.Key = r.short()
	n := int(r.byte())
	if n > MaxWrappedKeys {
		return nil, fmt.Errorf("%w: %d wrapped keys, 1 to %d are possible", ErrFormat, n, MaxWrappedKeys)
	}
	for range n {
		h.WrappedKeys = append(h.WrappedKeys, WrappedKey{Region: r.short(), KeyID: r.short(), CiphertextBlob: r.long()})
	}
	copy(h.Commitment[:], r.take(CommitmentSize))
	if r.missing || len(r.rest) > 0 {
		return nil, fmt.Errorf("%w: the lengths in the header do not fit together", ErrFormat)
	}
	return &h, h.check()
}

// headerLength reads the first bytes of a message.
func headerLength(raw []byte) (int, error) {
	if len(raw) < fixed || string(raw[:len(magic)]) != magic {
		return 0, fmt.Errorf("%w: it does not begin with %s", ErrFormat, magic)
	}
	if version, suite := raw[len(magic)], raw[len(magic)+1]; version != Version || suite != Suite {
		return 0, fmt.Errorf("%w that can be opened here: version %d, suite %d", ErrFormat, version, suite)
	}
	length := int(binary.BigEndian.Uint16(raw[fixed-2:]))
	if length < fixed+MessageIDSize+CommitmentSize || length > MaxHeader {
		return 0, fmt.Errorf("%w: a header cannot have %d bytes", ErrFormat, length)
	}
	return length, nil
}

// ReadHeader reads the header at the beginning of a message and leaves src behind
// it. It does not look into it; [Parse] does.
func ReadHeader(src io.Reader) ([]byte, error) {
	raw := make([]byte, fixed, MaxHeader)
	if _, err := io.ReadFull(src, raw); err != nil {
		return nil, cutOff(err)
	}
	length, err := headerLength(raw)
	if err != nil {
		return nil, err
	}
	raw = raw[:length]
	if _, err := io.ReadFull(src, raw[fixed:]); err != nil {
		return nil, cutOff(err)
	}
	return raw, nil
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends within the header", ErrFormat)
	}
	return err
}

// Split cuts a message in memory behind its header.
func Split(message []byte) (header, segments []byte, err error) {
	length, err := headerLength(message)
	if err != nil {
		return nil, nil, err
	}
	if length > len(message) {
		return nil, nil, cutOff(io.ErrUnexpectedEOF)
	}
	return message[:length], message[length:], nil
}

// reader takes fields off a header. Once something is missing it returns zeros.
type reader struct {
	rest    []byte
	missing bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		r.rest, r.missing = nil, true
		return nil
	}
	field := r.rest[:n]
	r.rest = r.rest[n:]
	return field
}

func (r *reader) byte() byte {
	if field := r.take(1); field != nil {
		return field[0]
	}
	return 0
}

func (r *reader) short() string { return string(r.take(int(r.byte()))) }

func (r *reader) long() string {
	if field := r.take(2); field != nil {
		return string(r.take(int(binary.BigEndian.Uint16(field))))
	}
	return ""
}
