package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// Negotiate exchanges versions as a client and returns the one that both sides speak.
func Negotiate(conn io.ReadWriter, offer Version) (Version, error) {
	if _, err := conn.Write([]byte{byte(offer)}); err != nil {
		return 0, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return 0, unexpected(err)
	}
	if Version(answer[0]) > offer {
		return 0, malformed("version %d was answered to an offer of %d", answer[0], offer)
	}
	return Version(answer[0]), nil
}

// Conn is what a [Client] needs of a connection; see [net.Conn].
type Conn interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// Client makes calls over a connection, one at a time. It implements
// [cryptoki.Session].
type Client struct {
	conn    Conn
	version Version
	stream  *bufio.Reader
	code    uint32
	out     []byte
}

var (
	_ cryptoki.Session  = (*Client)(nil)
	_ cryptoki.Pipeline = (*Client)(nil)
)

// NewClient makes calls over a connection whose version is settled.
func NewClient(conn Conn, version Version) *Client {
	return &Client{conn: conn, version: version, stream: bufio.NewReader(conn)}
}

// ErrUnsent is the reason when a call has no place in the protocol. Nothing was sent, and
// other calls may follow.
var ErrUnsent = errors.New("not sent")

// Do implements [cryptoki.Session]. The deadline of ctx bounds the call; that ctx is
// cancelled does not end it.
func (c *Client) Do(ctx context.Context, call *cryptoki.Call) (*cryptoki.Answer, error) {
	if err := c.send(ctx, call); err != nil {
		return nil, err
	}
	return c.receive(call, c.code)
}

// DoBoth implements [cryptoki.Pipeline].
func (c *Client) DoBoth(ctx context.Context, first, second *cryptoki.Call) (a, b *cryptoki.Answer, err error) {
	if err := c.send(ctx, first, second); err != nil {
		return nil, nil, err
	}
	if a, err = c.receive(first, c.code-1); err != nil {
		return nil, nil, err
	}
	if b, err = c.receive(second, c.code); err != nil {
		return nil, nil, err
	}
	return a, b, nil
}

// send sends calls in one piece.
func (c *Client) send(ctx context.Context, calls ...*cryptoki.Call) error {
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(deadline); err != nil {
		return err
	}
	const last = ^uint32(0) - 8
	if c.code >= last {
		c.code = 0 // which no frame has
	}
	out := c.out[:0]
	defer func() { clear(out[:cap(out)]) }() // which may have been a plaintext
	for _, call := range calls {
		begin := len(out)
		var err error
		out, err = c.version.AppendCall(BeginFrame(out), call)
		c.out = out
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnsent, err)
		}
		c.code++
		EndFrame(out, begin, c.code)
	}
	if _, err := c.conn.Write(out); err != nil {
		return fmt.Errorf("send %v: %w", calls[0].Function, err)
	}
	return nil
}

func (c *Client) receive(call *cryptoki.Call, code uint32) (*cryptoki.Answer, error) {
	frame, err := ReadFrame(c.stream, nil)
	if err != nil {
		return nil, fmt.Errorf("answer to %v: %w", call.Function, unexpected(err))
	}
	if frame.Code != code {
		return nil, malformed("the answer to call %d came to call %d", frame.Code, code)
	}
	return c.version.ParseAnswer(frame.Body, call)
}

// Close implements [cryptoki.Session].
func (c *Client) Close() error {
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return c.conn.Close()
}
