package rpc

import (
	"bufio"
	"errors"
	"io"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// Accept exchanges versions as a server and returns the one that both sides speak, and
// the client's own.
func Accept(conn io.ReadWriter) (version, offered Version, err error) {
	var offer [1]byte
	if _, err := io.ReadFull(conn, offer[:]); err != nil {
		return 0, 0, err
	}
	offered = Version(offer[0])
	version = min(offered, Latest)
	_, err = conn.Write([]byte{byte(version)})
	return version, offered, err
}

// Server answers the calls of a connection.
type Server struct {
	Version Version
	// Do answers a call. The call and its parts are the server's again afterwards.
	Do func(*cryptoki.Call) *cryptoki.Answer
	// Malformed, unless nil, is told of a message that was not understood.
	Malformed func(error)
	// Patience is how long a client may take to send the rest of a frame that it has
	// begun, and to read a large answer; 0 is for ever.
	Patience time.Duration
	// Admit, unless nil, is asked before memory is taken for a frame or an answer of
	// more than Small bytes, and may wait. The memory is given back with leave. What is
	// not admitted is answered with CKR_DEVICE_MEMORY.
	Admit func(size int) (leave func(), ok bool)
}

// Small is the size up to which a frame is nobody's business, in bytes.
const Small = 64 << 10

// ServerConn is what a [Server] needs of a connection; see [net.Conn].
type ServerConn interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Serve answers calls one after the other, until the stream ends, which is no error.
// A message that is not understood is answered with CKR_DEVICE_ERROR, as p11-kit does;
// a frame that is not ends the connection.
func (s *Server) Serve(conn ServerConn) error {
	stream := bufio.NewReader(conn)
	var in, out []byte
	for {
		if _, err := stream.Peek(1); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var err error
		if in, out, err = s.next(conn, stream, in, out); err != nil {
			return err
		}
	}
}

// next answers the call that has begun to come. It returns the answers in out that are
// not sent yet.
func (s *Server) next(conn ServerConn, stream *bufio.Reader, in, out []byte) ([]byte, []byte, error) {
	// A whole frame has come at once, as a rule, and needs no deadline.
	slow := s.Patience > 0 && !complete(stream)
	if slow {
		if err := conn.SetReadDeadline(time.Now().Add(s.Patience)); err != nil {
			return nil, nil, err
		}
	}
	header, err := readHeader(stream)
	if err != nil {
		return nil, nil, unexpected(err)
	}
	var place place
	defer place.leave()
	admitted := place.enter(s, header.size)
	if slow { // the wait was not the client's
		if err := conn.SetReadDeadline(time.Now().Add(s.Patience)); err != nil {
			return nil, nil, err
		}
	}
	if admitted {
		in, err = readBody(stream, in[:0], header.size)
	} else {
		_, err = stream.Discard(header.size)
	}
	if err != nil {
		return nil, nil, unexpected(err)
	}
	if slow {
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			return nil, nil, err
		}
	}
	begin := len(out)
	out = BeginFrame(out)
	if admitted {
		out = s.answer(out, in, &place)
	} else {
		out, _ = s.Version.AppendAnswer(out, new(cryptoki.Call), cryptoki.Refuse(cryptoki.CKR_DEVICE_MEMORY))
	}
	EndFrame(out, begin, header.code)
	in = wiped(in)
	if complete(stream) && len(out) < Small {
		return in, out, nil // goes with the answer to the next call
	}
	err = s.write(conn, out)
	return in, wiped(out)[:0], err
}

// write sends an answer. What is small goes into the kernel's buffer, as a rule, and
// costs nobody anything when it does not.
func (s *Server) write(conn ServerConn, frame []byte) error {
	if s.Patience == 0 || len(frame) <= Small {
		_, err := conn.Write(frame)
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(s.Patience)); err != nil {
		return err
	}
	if _, err := conn.Write(frame); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

// place is where a call that is large is counted, once.
type place struct{ left func() }

func (p *place) enter(s *Server, size int) (ok bool) {
	if size <= Small || s.Admit == nil || p.left != nil {
		return true
	}
	p.left, ok = s.Admit(size)
	return ok
}

func (p *place) leave() {
	if p.left != nil {
		p.left()
	}
}

// asks is for how many bytes of an answer a call has room.
func asks(call *cryptoki.Call) int {
	room := uint64(call.Room.Size)
	if call.Function == cryptoki.GetAttributeValue {
		for i := range call.Templates[0] {
			room += call.Templates[0][i].Length
		}
	}
	return int(min(room, MaxBody))
}

// complete reports whether a whole frame has come already.
func complete(stream *bufio.Reader) bool {
	if stream.Buffered() < headerSize {
		return false
	}
	raw, err := stream.Peek(headerSize)
	if err != nil {
		return false
	}
	h, err := parseHeader(raw)
	return err == nil && stream.Buffered() >= headerSize+h.options+h.size
}

func (s *Server) answer(dst, body []byte, place *place) []byte {
	call, err := s.Version.ParseCall(body)
	var answer *cryptoki.Answer
	switch {
	case err == nil && !carried(call.Function):
		answer = cryptoki.Refuse(cryptoki.CKR_FUNCTION_NOT_SUPPORTED)
	case err == nil && !place.enter(s, asks(call)):
		answer = cryptoki.Refuse(cryptoki.CKR_DEVICE_MEMORY)
	case err == nil:
		answer = s.Do(call)
	default:
		s.tell(err)
		call, answer = new(cryptoki.Call), cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR)
	}
	out, err := s.Version.AppendAnswer(dst, call, answer)
	clear(answer.Data)
	if err != nil {
		// p11-kit's answer to what it cannot put into a message.
		s.tell(err)
		out, _ = s.Version.AppendAnswer(dst, call, cryptoki.Refuse(cryptoki.CKR_DEVICE_MEMORY))
	}
	return out
}

func (s *Server) tell(err error) {
	if s.Malformed != nil {
		s.Malformed(err)
	}
}

// wiped removes what a buffer held, which may have been a plaintext or a PIN, and gives
// up one that a large message made.
func wiped(buffer []byte) []byte {
	clear(buffer[:cap(buffer)])
	const keep = 64 << 10
	if cap(buffer) > keep {
		return nil
	}
	return buffer
}
