package envelope

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
)

// What the derived keys are for: the beginning of HKDF's info.
const (
	forMessage    = "kmsbroker envelope 1 message key"
	forCommitment = "kmsbroker envelope 1 commitment"
)

// Message is a message with its header and its key, ready to be sealed or opened.
// Its methods may be called concurrently, but not with Wipe.
type Message struct {
	header     []byte
	key        []byte
	associated []byte // with every segment
}

// New makes the header and the key of a new message under a data key of KeySize
// bytes, which is wrapped as given. The context is authenticated, not stored.
func New(key string, wrapped []WrappedKey, dataKey []byte, context map[string]string) (*Message, error) {
	h := Header{Key: key, WrappedKeys: wrapped}
	rand.Read(h.MessageID[:])
	return build(&h, dataKey, context)
}

// build makes a message with the ID of the header, which gets its commitment.
func build(h *Header, dataKey []byte, context map[string]string) (*Message, error) {
	text, err := canonical(context)
	if err != nil {
		return nil, err
	}
	uncommitted, err := h.uncommitted()
	if err != nil {
		return nil, err
	}
	key, err := messageKey(h, dataKey, text)
	if err != nil {
		return nil, err
	}
	commitment, err := commit(uncommitted, key, text)
	if err != nil {
		return nil, err
	}
	copy(h.Commitment[:], commitment)
	return newMessage(append(uncommitted, commitment...), key, text), nil
}

// WithDataKey makes a message of its header and the data key, opened by KMS. The
// commitment is compared first.
func WithDataKey(header, dataKey []byte, context map[string]string) (*Message, error) {
	h, err := Parse(header)
	if err != nil {
		return nil, err
	}
	text, err := canonical(context)
	if err != nil {
		return nil, err
	}
	key, err := messageKey(h, dataKey, text)
	if err != nil {
		return nil, err
	}
	return committed(header, key, text)
}

// WithMessageKey makes a message of its header and its key, as the daemon hands
// them out. The commitment is compared first.
func WithMessageKey(header, key []byte, context map[string]string) (*Message, error) {
	if _, err := Parse(header); err != nil {
		return nil, err
	}
	text, err := canonical(context)
	if err != nil {
		return nil, err
	}
	return committed(header, bytes.Clone(key), text)
}

func committed(header, key, context []byte) (*Message, error) {
	uncommitted := header[:len(header)-CommitmentSize]
	commitment, err := commit(uncommitted, key, context)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(commitment, header[len(uncommitted):]) != 1 {
		clear(key)
		return nil, ErrCommitment
	}
	return newMessage(bytes.Clone(header), key, context), nil
}

func newMessage(header, key, context []byte) *Message {
	return &Message{header: header, key: key, associated: digest(header, context)}
}

// Header begins the message. It must not be changed.
func (m *Message) Header() []byte { return m.header }

// Key is the message key, of KeySize bytes. It is gone after Wipe.
func (m *Message) Key() []byte { return m.key }

// Wipe overwrites the message key. Copies that Tink has made for writers and readers go
// with these, and are not overwritten.
func (m *Message) Wipe() { clear(m.key) }

// messageKey depends on the data key, the message's ID, the name of the key and
// the context, so that it is of no use for any other message and comes out wrong
// for whoever claims another context.
func messageKey(h *Header, dataKey, context []byte) ([]byte, error) {
	if len(dataKey) != KeySize {
		return nil, fmt.Errorf("a data key of %d bytes, not %d", len(dataKey), KeySize)
	}
	info := appendShort(append([]byte(forMessage), Suite), h.Key)
	info = append(info, digest(context)...)
	return hkdf.Key(sha256.New, dataKey, h.MessageID[:], string(info), KeySize)
}

// commit makes the commitment, of the message key and so of the data key, of the
// header before it and of the context. AES-GCM itself is not committing: one
// ciphertext can be made to open under two keys.
func commit(uncommitted, key, context []byte) ([]byte, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("a message key of %d bytes, not %d", len(key), KeySize)
	}
	return hkdf.Expand(sha256.New, key, forCommitment+string(digest(uncommitted, context)), CommitmentSize)
}

// digest hashes parts of which each tells its own length.
func digest(parts ...[]byte) []byte {
	h := sha256.New()
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(nil)
}
