// Package envelope is the format of messages that are encrypted on this machine
// with a key that KMS keeps: a header, which says what opens the message, and
// segments of ciphertext. docs/envelope.md has it byte by byte.
//
// A data key never leaves kmsbrokerd. From it and the message's random ID comes a
// message key, which is all that a program needs for one message and useless for
// any other; so this package is for both sides. The daemon makes a [Message] of a
// data key, a client makes one of a message key.
//
// The caller's encryption context goes into the message key, the commitment and
// every segment, and is not stored. Whoever knows a message key can also make
// another message of the same header: a message is as good as those who may open
// it.
package envelope

import "errors"

// Version and Suite are the only ones there are.
const (
	// Version of the header.
	Version = 1
	// Suite 1 is Tink's AES-GCM-HKDF streaming: AES-256, HKDF-SHA256, ciphertext
	// segments of SegmentSize bytes.
	Suite = 1
)

// Sizes in bytes.
const (
	KeySize       = 32 // of data keys and message keys
	MessageIDSize = 32
	// MessageIDOffset is where in a header the message ID begins.
	MessageIDOffset = fixed
	CommitmentSize  = 32
	// SegmentSize is of ciphertext, with its tag. Larger ones are not faster
	// (make bench), and this much a reader holds back until it is verified.
	SegmentSize = 64 << 10
	tagSize     = 16
	// tinkHeader is its own length, the salt and the prefix of the nonces.
	tinkHeader = 1 + KeySize + 7
)

// Overhead is how many bytes longer what follows the header is than a plaintext of
// so many bytes: Tink's own header and the tags.
func Overhead(plaintext int) int {
	return tinkHeader + tagSize*(1+max(0, plaintext-1+tinkHeader)/(SegmentSize-tagSize))
}

// Errors of what came from outside.
var (
	// ErrFormat: the bytes are no header, or one of a later version.
	ErrFormat = errors.New("not an envelope")
	// ErrCommitment: the key or the encryption context is not the message's, or
	// somebody changed the header. Nothing was decrypted.
	ErrCommitment = errors.New("the key or the encryption context is not that of the envelope, or its header was changed")
	// ErrDamaged: a segment was changed, or the end is missing.
	ErrDamaged = errors.New("the envelope is damaged or cut off")
	// ErrContext: the encryption context is longer than MaxContext.
	ErrContext = errors.New("the encryption context is too long")
)
