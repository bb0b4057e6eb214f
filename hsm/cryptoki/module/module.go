// Package module makes the calls of package cryptoki of a PKCS#11 library, with exactly
// what the caller passed: NULL where there was NULL, the same lengths, and whatever
// comes back also when the call fails. It is C, so only plugins and tests import it.
package module

/*
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "call.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// Module is a PKCS#11 library that is loaded. A library that was loaded before by
// another package of the same process is the same one, initialised or not.
type Module struct {
	list *C.ck_function_list
}

// Open loads the library at an absolute path. It stays loaded.
func Open(path string) (*Module, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var why *C.char
	list := C.ck_load(name, &why)
	if list == nil {
		defer C.free(unsafe.Pointer(why))
		return nil, fmt.Errorf("load PKCS#11 library %s: %s", path, C.GoString(why))
	}
	return &Module{list: list}, nil
}

// Do makes a call. It may be made concurrently with others, within what PKCS#11 allows.
// Functions that the library does not have, and those of PKCS#11 3.0, are answered with
// CKR_FUNCTION_NOT_SUPPORTED. C_Initialize is called with CKF_OS_LOCKING_OK.
func (m *Module) Do(call *cryptoki.Call) *cryptoki.Answer {
	function := call.Function
	switch function {
	case cryptoki.InitToken2:
		function = cryptoki.InitToken
	case cryptoki.DeriveKey2:
		function = cryptoki.DeriveKey
	}
	if function == 0 || function > cryptoki.WaitForSlotEvent {
		return cryptoki.Refuse(cryptoki.CKR_FUNCTION_NOT_SUPPORTED)
	}
	if call.Room.Size > maxRoom {
		return cryptoki.Refuse(cryptoki.CKR_HOST_MEMORY)
	}
	b := builder{c: new(C.ck_call)}
	defer b.pins.Unpin()
	c := b.call(function, call)
	rv := cryptoki.RV(C.ck_do(m.list, C.uint(function), c))
	return b.answer(function, call, rv)
}

// Legacy calls C_GetFunctionStatus and C_CancelFunction, which have no number because
// p11-kit carries neither: its client answers them. From PKCS#11 2.01 on the answer is
// CKR_FUNCTION_NOT_PARALLEL.
func (m *Module) Legacy(session uint64) (status, cancel cryptoki.RV) {
	var s, c C.ck_ulong
	C.ck_legacy(m.list, C.ck_ulong(session), &s, &c)
	return cryptoki.RV(s), cryptoki.RV(c)
}

// maxRoom bounds the room for an answer, in bytes.
const maxRoom = 16 << 20

// builder is a call in the form that C wants. Its memory is Go's, and pinned.
type builder struct {
	pins runtime.Pinner
	c    *C.ck_call // alone, because cgo looks at everything that it lies in
	room []byte     // for bytes and structures
	list []C.ck_ulong
}

func (b *builder) call(function cryptoki.Function, call *cryptoki.Call) *C.ck_call {
	c := b.c
	for i, n := range call.Numbers {
		c.numbers[i] = C.ck_ulong(n)
	}
	if call.Flag {
		c.flag = 1
	}
	for i, data := range call.Data {
		c.data[i], c.data_length[i] = b.bytes(data), C.ck_ulong(len(data))
	}
	if call.Mechanism != nil {
		c.mechanism = b.mechanism(call.Mechanism)
	}
	for i, template := range call.Templates {
		c.templates[i] = b.template(template, function == cryptoki.GetAttributeValue)
		c.template_length[i] = C.ck_ulong(len(template))
	}
	b.makeRoom(function, call.Room)
	return c
}

// bytes is a pointer to bytes, which are nobody's to write: NULL for nil, and something
// for what is empty.
func (b *builder) bytes(v []byte) unsafe.Pointer {
	if v == nil {
		return nil
	}
	if len(v) == 0 {
		v = []byte{0}
	}
	return pin(b, unsafe.SliceData(v))
}

func pin[T any](b *builder, v *T) unsafe.Pointer {
	b.pins.Pin(v)
	return unsafe.Pointer(v)
}

// makeRoom gives the function what it writes its result to.
func (b *builder) makeRoom(function cryptoki.Function, room cryptoki.Room) {
	switch function {
	case cryptoki.GetInfo:
		b.structure(C.sizeof_ck_info)
	case cryptoki.GetSlotInfo:
		b.structure(C.sizeof_ck_slot_info)
	case cryptoki.GetTokenInfo:
		b.structure(C.sizeof_ck_token_info)
	case cryptoki.GetSessionInfo, cryptoki.GetMechanismInfo:
		b.structure(4 * cryptoki.UlongSize)
	case cryptoki.GetSlotList, cryptoki.GetMechanismList, cryptoki.FindObjects:
		b.c.room_length = C.ck_ulong(room.Size)
		if !room.Null {
			b.list = make([]C.ck_ulong, max(1, room.Size))
			b.c.room = pin(b, unsafe.SliceData(b.list))
		}
	default:
		b.c.room_length = C.ck_ulong(room.Size)
		if !room.Null {
			b.room = make([]byte, max(1, room.Size))
			b.c.room = pin(b, unsafe.SliceData(b.room))
		}
	}
}

func (b *builder) structure(size int) {
	// Words, so that they lie where a structure may.
	words := make([]C.ck_ulong, (size+cryptoki.UlongSize-1)/cryptoki.UlongSize)
	b.c.room = pin(b, unsafe.SliceData(words))
}
