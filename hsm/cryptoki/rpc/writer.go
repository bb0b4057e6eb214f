package rpc

import (
	"encoding/binary"
	"fmt"
)

// writer puts a message together.
type writer struct {
	b   []byte
	err error
}

func (w *writer) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *writer) byte(v byte)     { w.b = append(w.b, v) }
func (w *writer) uint32(v uint32) { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *writer) uint64(v uint64) { w.b = binary.BigEndian.AppendUint64(w.b, v) }

// bytes writes a string of bytes, NULL for nil.
func (w *writer) bytes(v []byte) {
	if v == nil {
		w.uint32(null)
		return
	}
	w.uint32(uint32(len(v)))
	w.b = append(w.b, v...)
}

// array writes bytes, or their length alone if there are none to go with it.
func (w *writer) array(v []byte, size uint32) {
	if v == nil && size > 0 {
		w.byte(0)
		w.uint32(size)
		return
	}
	w.byte(1)
	w.bytes(v)
}

// ulongs writes an array of CK_ULONG, or its length alone.
func (w *writer) ulongs(v []uint64, size uint32) {
	if v == nil {
		w.byte(0)
		w.uint32(size)
		return
	}
	w.byte(1)
	w.uint32(uint32(len(v)))
	for _, n := range v {
		w.uint64(n)
	}
}
