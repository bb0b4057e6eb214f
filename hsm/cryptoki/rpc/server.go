package rpc

import (
	"bufio"
	"errors"
	"io"

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
}

// Serve answers calls one after the other, until the stream ends, which is no error.
// A message that is not understood is answered with CKR_DEVICE_ERROR, as p11-kit does;
// a frame that is not ends the connection.
func (s *Server) Serve(conn io.ReadWriter) error {
	stream := bufio.NewReader(conn)
	var in, out []byte
	for {
		frame, err := ReadFrame(stream, in)
		in = frame.Body
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		out = s.answer(BeginFrame(out[:0]), frame.Body)
		EndFrame(out, 0, frame.Code)
		_, err = conn.Write(out)
		in, out = wiped(in), wiped(out)
		if err != nil {
			return err
		}
	}
}

func (s *Server) answer(dst, body []byte) []byte {
	call, err := s.Version.ParseCall(body)
	var answer *cryptoki.Answer
	switch {
	case err == nil && !carried(call.Function):
		answer = cryptoki.Refuse(cryptoki.CKR_FUNCTION_NOT_SUPPORTED)
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
