package client

import (
	"bytes"
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/envelope"
)

// maxSealed is the longest plaintext, in bytes, that the daemon seals and opens
// itself (envelope.proto).
const maxSealed = 64 << 10

// Seal makes a message of any length that is in memory: an envelope, which needs
// KMS rarely, where Encrypt needs it every time. The encryption context is
// authenticated but not stored. The message opens in every region that the key has
// a CMK in, or in the client's own.
func (c *Client) Seal(ctx context.Context, key string, plaintext []byte, encryptionContext map[string]string) ([]byte, error) {
	if len(plaintext) > maxSealed {
		var message bytes.Buffer
		message.Grow(len(plaintext) + envelope.MaxHeader + envelope.Overhead(len(plaintext)))
		sealing := ToSeal{Key: key, EncryptionContext: encryptionContext, Size: int64(len(plaintext))}
		err := c.SealWith(ctx, &message, bytes.NewReader(plaintext), sealing)
		return message.Bytes(), err
	}
	answer, err := call(ctx, c, c.crypto.Seal, &v1.SealRequest{
		Key: key, Plaintext: plaintext, EncryptionContext: encryptionContext, Regions: c.regions(nil),
	})
	if err != nil {
		return nil, err
	}
	return answer.GetMessage(), nil
}

// Opened is what Open opened.
type Opened struct {
	Key       string // the broker's name of the key
	Plaintext []byte
}

// Open opens a message that Seal or SealStream made.
func (c *Client) Open(ctx context.Context, message []byte, encryptionContext map[string]string) (*Opened, error) {
	_, segments, err := envelope.Split(message)
	if err != nil {
		return nil, envelopeError(err)
	}
	if len(segments) > maxSealed+envelope.Overhead(maxSealed) {
		return c.openLong(ctx, message, encryptionContext)
	}
	answer, err := call(ctx, c, c.crypto.Open, &v1.OpenRequest{
		Message: message, EncryptionContext: encryptionContext, Region: c.region,
	})
	if err != nil {
		return nil, err
	}
	return &Opened{Key: answer.GetKey(), Plaintext: answer.GetPlaintext()}, nil
}

func (c *Client) openLong(ctx context.Context, message []byte, encryptionContext map[string]string) (*Opened, error) {
	r, err := c.NewOpener(ctx, bytes.NewReader(message), ToOpen{EncryptionContext: encryptionContext})
	if err != nil {
		return nil, err
	}
	plaintext := bytes.NewBuffer(make([]byte, 0, len(message)+bytes.MinRead))
	if _, err := plaintext.ReadFrom(r); err != nil {
		clear(plaintext.Bytes())
		return nil, err
	}
	return &Opened{Key: r.Key, Plaintext: plaintext.Bytes()}, nil
}

// regions are those that were asked for, or the client's own; none means all.
func (c *Client) regions(named []string) []string {
	if len(named) == 0 && c.region != "" {
		return []string{c.region}
	}
	return named
}

// envelopeError makes an [*Error] of what a message that cannot be opened says, and
// leaves other errors alone.
func envelopeError(err error) error {
	for _, e := range []Error{
		{Code: codes.InvalidArgument, Reason: "ENVELOPE_FORMAT", Err: envelope.ErrFormat},
		{Code: codes.InvalidArgument, Reason: "ENVELOPE_MISMATCH", Err: envelope.ErrCommitment},
		{Code: codes.DataLoss, Reason: "ENVELOPE_DAMAGED", Err: envelope.ErrDamaged},
		{Code: codes.InvalidArgument, Reason: "CONTEXT_SIZE", Err: envelope.ErrContext},
	} {
		if errors.Is(err, e.Err) {
			e.Message, e.Err = err.Error(), err
			return &e
		}
	}
	return err
}
