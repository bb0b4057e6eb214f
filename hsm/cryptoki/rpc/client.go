package rpc

import (
	"bufio"
	"context"
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

var _ cryptoki.Session = (*Client)(nil)

// NewClient makes calls over a connection whose version is settled.
func NewClient(conn Conn, version Version) *Client {
	return &Client{conn: conn, version: version, stream: bufio.NewReader(conn)}
}

// Do implements [cryptoki.Session]. The deadline of ctx bounds the call; that ctx is
// cancelled does not end it.
func (c *Client) Do(ctx context.Context, call *cryptoki.Call) (*cryptoki.Answer, error) {
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	defer c.wipe()
	c.code++
	if c.code == 0 {
		c.code++
	}
	out, err := c.version.AppendCall(BeginFrame(c.out[:0]), call)
	c.out = out
	if err != nil {
		return nil, err
	}
	EndFrame(out, 0, c.code)
	if _, err := c.conn.Write(out); err != nil {
		return nil, fmt.Errorf("send %v: %w", call.Function, err)
	}
	frame, err := ReadFrame(c.stream, nil)
	if err != nil {
		return nil, fmt.Errorf("answer to %v: %w", call.Function, unexpected(err))
	}
	if frame.Code != c.code {
		return nil, malformed("the answer to call %d came to call %d", frame.Code, c.code)
	}
	return c.version.ParseAnswer(frame.Body, call)
}

// wipe removes what was sent, which may have been a plaintext.
func (c *Client) wipe() { clear(c.out[:cap(c.out)]) }

// Close implements [cryptoki.Session].
func (c *Client) Close() error {
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return c.conn.Close()
}
