package rpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

const headerSize = 12

// Frame is a request or an answer on its way.
type Frame struct {
	// Code is the client's name for the call, which is not 0.
	Code uint32
	Body []byte
}

// ReadFrame reads a frame into the memory of buffer, which it returns as the frame's
// Body, grown if need be. io.EOF: the stream ended between frames.
func ReadFrame(stream *bufio.Reader, buffer []byte) (Frame, error) {
	h, err := readHeader(stream)
	if err != nil {
		return Frame{Body: buffer}, err
	}
	body, err := readBody(stream, buffer[:0], h.size)
	return Frame{Code: h.code, Body: body}, err
}

// header is what goes before a body.
type header struct {
	code          uint32
	options, size int
}

func parseHeader(raw []byte) (header, error) {
	code := binary.BigEndian.Uint32(raw)
	options, size := binary.BigEndian.Uint32(raw[4:]), binary.BigEndian.Uint32(raw[8:])
	switch {
	case code == 0:
		return header{}, malformed("a frame has the code 0")
	case options > maxOptions:
		return header{}, malformed("a frame has %d bytes of options", options)
	case size > MaxBody:
		return header{}, malformed("a frame has %d bytes, more than %d", size, MaxBody)
	}
	return header{code, int(options), int(size)}, nil
}

// readHeader reads what goes before a body, and skips the options.
func readHeader(stream *bufio.Reader) (header, error) {
	var raw [headerSize]byte
	if _, err := io.ReadFull(stream, raw[:]); err != nil {
		return header{}, err
	}
	h, err := parseHeader(raw[:])
	if err != nil {
		return h, err
	}
	if _, err := stream.Discard(h.options); err != nil {
		return h, unexpected(err)
	}
	return h, nil
}

// readBody grows the buffer with what has come, not with what was announced.
func readBody(stream *bufio.Reader, body []byte, size int) ([]byte, error) {
	const step = 64 << 10
	for len(body) < size {
		n := min(size-len(body), max(step, len(body)))
		start := len(body)
		if cap(body) < start+n {
			grown := make([]byte, start, start+n)
			copy(grown, body)
			clear(body)
			body = grown
		}
		body = body[:start+n]
		if _, err := io.ReadFull(stream, body[start:]); err != nil {
			return body[:start], unexpected(err)
		}
	}
	return body, nil
}

// unexpected is the error of a stream that ends inside a frame.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// BeginFrame makes room for the header of a frame at the end of dst. The body is
// appended behind it, and EndFrame completes it.
func BeginFrame(dst []byte) []byte { return append(dst, make([]byte, headerSize)...) }

// EndFrame writes the header of the frame that begins at start.
func EndFrame(frame []byte, start int, code uint32) {
	binary.BigEndian.PutUint32(frame[start:], code)
	binary.BigEndian.PutUint32(frame[start+4:], 0)
	binary.BigEndian.PutUint32(frame[start+8:], uint32(len(frame)-start-headerSize))
}
