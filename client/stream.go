package client

import (
	"context"
	"io"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/envelope"
)

// chunk is what is read and written at once, in bytes. A stream takes two of these
// and three segments of memory, whatever its length.
const chunk = 256 << 10

// ToSeal is what a stream is sealed with.
type ToSeal struct {
	Key               string
	EncryptionContext map[string]string
	// Regions in which the message shall open, all of which must answer. None means
	// the client's region, or all of the key that answer.
	Regions []string
	// Size of the plaintext in bytes, 0 if it is not known. It counts against what
	// is sealed with one data key.
	Size int64
}

// ToOpen is what a stream is opened with.
type ToOpen struct {
	EncryptionContext map[string]string
	Key               string // refuse unless it was sealed with this key; "" is any
}

// SealStream seals what src has until its end, of any length. The daemon is asked
// for one key, and the data does not go through it. Errors of src and dst come back
// as they are; after any error, what is in dst does not open.
func (c *Client) SealStream(ctx context.Context, key string, dst io.Writer, src io.Reader, encryptionContext map[string]string) error {
	return c.SealWith(ctx, dst, src, ToSeal{Key: key, EncryptionContext: encryptionContext})
}

// SealWith is SealStream with more to choose.
func (c *Client) SealWith(ctx context.Context, dst io.Writer, src io.Reader, sealing ToSeal) error {
	w, err := c.NewSealer(ctx, dst, sealing)
	if err != nil {
		return err
	}
	if err := copyAll(ctx, w, src); err != nil {
		return err
	}
	return w.Close()
}

// OpenStream opens what SealStream sealed. Every byte that it writes is verified,
// but that the message is whole is known only at its end: after any error, what is
// in dst must be thrown away.
func (c *Client) OpenStream(ctx context.Context, dst io.Writer, src io.Reader, encryptionContext map[string]string) error {
	return c.OpenWith(ctx, dst, src, ToOpen{EncryptionContext: encryptionContext})
}

// OpenWith is OpenStream with more to choose.
func (c *Client) OpenWith(ctx context.Context, dst io.Writer, src io.Reader, opening ToOpen) error {
	r, err := c.NewOpener(ctx, src, opening)
	if err != nil {
		return err
	}
	return copyAll(ctx, dst, r)
}

// copyAll copies until the end of src or of ctx.
func copyAll(ctx context.Context, dst io.Writer, src io.Reader) error {
	buffer := make([]byte, chunk)
	defer clear(buffer)
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, &until{ctx, src}, buffer)
	return err
}

// until is a reader that ends with ctx.
type until struct {
	ctx context.Context
	src io.Reader
}

// Read implements io.Reader.
func (u *until) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.src.Read(p)
}

// NewSealer returns a writer that seals what is written to it into dst. Close ends
// the message and does not close dst; a message that is not closed does not open.
func (c *Client) NewSealer(ctx context.Context, dst io.Writer, sealing ToSeal) (io.WriteCloser, error) {
	answer, err := call(ctx, c, c.crypto.CreateMessageKey, &v1.CreateMessageKeyRequest{
		Key: sealing.Key, EncryptionContext: sealing.EncryptionContext,
		Regions: c.regions(sealing.Regions), Size: uint64(max(sealing.Size, 0)),
	})
	if err != nil {
		return nil, err
	}
	defer clear(answer.GetMessageKey())
	message, err := envelope.WithMessageKey(answer.GetHeader(), answer.GetMessageKey(), sealing.EncryptionContext)
	if err != nil {
		return nil, envelopeError(err)
	}
	defer message.Wipe()
	return message.NewWriter(dst)
}

// Opener reads the plaintext of a message. Until it returned io.EOF, what it
// returned is verified but may not be all.
type Opener struct {
	Key string // the broker's name of the key
	r   io.Reader
}

// NewOpener asks for the key of the message that begins at src.
func (c *Client) NewOpener(ctx context.Context, src io.Reader, opening ToOpen) (*Opener, error) {
	header, err := envelope.ReadHeader(src)
	if err != nil {
		return nil, envelopeError(err)
	}
	answer, err := call(ctx, c, c.crypto.GetMessageKey, &v1.GetMessageKeyRequest{
		Header: header, EncryptionContext: opening.EncryptionContext, Key: opening.Key, Region: c.region,
	})
	if err != nil {
		return nil, err
	}
	defer clear(answer.GetMessageKey())
	message, err := envelope.WithMessageKey(header, answer.GetMessageKey(), opening.EncryptionContext)
	if err != nil {
		return nil, envelopeError(err)
	}
	defer message.Wipe()
	r, err := message.NewReader(src)
	if err != nil {
		return nil, envelopeError(err)
	}
	return &Opener{Key: answer.GetKey(), r: r}, nil
}

// Read implements io.Reader.
func (o *Opener) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	return n, envelopeError(err)
}
