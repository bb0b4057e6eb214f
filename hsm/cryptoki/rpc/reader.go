package rpc

import "encoding/binary"

// reader takes a message apart. After the first mistake it gives zeros, so that only
// the end needs to be checked.
type reader struct {
	rest       []byte
	err        error
	attributes int    // read so far
	room       uint64 // asked for so far, in bytes
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = malformed("%s", what)
	}
	r.rest = nil
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.rest) {
		r.fail("it is too short")
		return nil
	}
	taken := r.rest[:n:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bytes reads a string of bytes, nil for NULL. It is part of the message.
func (r *reader) bytes() []byte {
	n := r.uint32()
	if r.err != nil || n == null {
		return nil
	}
	if n > MaxBody {
		r.fail("it is too short")
		return nil
	}
	return r.take(int(n))
}

// array reads what may come as its length alone.
func (r *reader) array() (data []byte, size uint32) {
	if r.byte() == 0 {
		return nil, r.uint32()
	}
	data = r.bytes()
	return data, uint32(len(data))
}

// ulongs reads an array of CK_ULONG, which may come as its length alone.
func (r *reader) ulongs() (list []uint64, size uint32) {
	valid, size := r.byte(), r.uint32()
	if valid == 0 || r.err != nil {
		return nil, size
	}
	if int64(size)*8 > int64(len(r.rest)) {
		r.fail("it is too short")
		return nil, 0
	}
	list = make([]uint64, size)
	for i := range list {
		list[i] = r.uint64()
	}
	return list, size
}

// fixed reads a string that has to fill dst.
func (r *reader) fixed(dst []byte) {
	b := r.bytes()
	if r.err == nil && len(b) != len(dst) {
		r.fail("a padded text has another length")
	}
	copy(dst, b)
}

// end is the error of the whole message.
func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.fail("something follows it")
	}
	return r.err
}
