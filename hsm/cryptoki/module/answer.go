package module

// #include "call.h"
import "C"

import (
	"unsafe"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// answer takes the results out of a call that was made.
func (b *builder) answer(function cryptoki.Function, call *cryptoki.Call, rv cryptoki.RV) *cryptoki.Answer {
	a := &cryptoki.Answer{RV: rv}
	switch function {
	case cryptoki.GetAttributeValue:
		if rv == cryptoki.CKR_OK || rv == cryptoki.CKR_ATTRIBUTE_SENSITIVE || rv == cryptoki.CKR_ATTRIBUTE_TYPE_INVALID || rv == cryptoki.CKR_BUFFER_TOO_SMALL {
			a.Attributes = attributes(b.c.templates[0], call.Templates[0])
		}
	case cryptoki.GetSlotList, cryptoki.GetMechanismList, cryptoki.FindObjects:
		b.numbers(a, call.Room)
	case cryptoki.GetInfo, cryptoki.GetSlotInfo, cryptoki.GetTokenInfo:
		if rv == cryptoki.CKR_OK {
			a.Info = info(function, b.c.room)
		}
	case cryptoki.GetSessionInfo, cryptoki.GetMechanismInfo:
		if rv == cryptoki.CKR_OK {
			for i, n := range (*[4]C.ck_ulong)(b.c.room) {
				a.Numbers[i] = uint64(n)
			}
		}
	case cryptoki.GenerateRandom:
		if rv == cryptoki.CKR_OK && !call.Room.Null {
			a.Data, a.Size = b.room[:call.Room.Size], call.Room.Size
		}
	case cryptoki.OpenSession, cryptoki.CreateObject, cryptoki.CopyObject, cryptoki.GetObjectSize, cryptoki.GenerateKey,
		cryptoki.UnwrapKey, cryptoki.DeriveKey, cryptoki.WaitForSlotEvent:
		if rv == cryptoki.CKR_OK {
			a.Numbers[0] = uint64(b.c.numbers[0])
		}
	case cryptoki.GenerateKeyPair:
		if rv == cryptoki.CKR_OK {
			a.Numbers[0], a.Numbers[1] = uint64(b.c.numbers[0]), uint64(b.c.numbers[1])
		}
	case cryptoki.Encrypt, cryptoki.EncryptUpdate, cryptoki.EncryptFinal, cryptoki.Decrypt, cryptoki.DecryptUpdate,
		cryptoki.DecryptFinal, cryptoki.Digest, cryptoki.DigestFinal, cryptoki.Sign, cryptoki.SignFinal,
		cryptoki.SignRecover, cryptoki.VerifyRecover, cryptoki.DigestEncryptUpdate, cryptoki.DecryptDigestUpdate,
		cryptoki.SignEncryptUpdate, cryptoki.DecryptVerifyUpdate, cryptoki.WrapKey, cryptoki.GetOperationState:
		b.bytesOut(a, call.Room)
	}
	return a
}

// bytesOut are bytes, or how many there would be. A library that says to have written
// more than there was room for has overrun it, and is not believed in anything.
func (b *builder) bytesOut(a *cryptoki.Answer, room cryptoki.Room) {
	n := uint64(b.c.room_length)
	switch {
	case a.RV == cryptoki.CKR_BUFFER_TOO_SMALL, a.RV == cryptoki.CKR_OK && room.Null:
		a.Size = uint32(min(n, 1<<32-1))
	case a.RV != cryptoki.CKR_OK:
	case n > uint64(room.Size):
		*a = *cryptoki.Refuse(cryptoki.CKR_GENERAL_ERROR)
	default:
		a.Data, a.Size = b.room[:n], uint32(n)
	}
}

// numbers is bytesOut for lists.
func (b *builder) numbers(a *cryptoki.Answer, room cryptoki.Room) {
	n := uint64(b.c.room_length)
	switch {
	case a.RV == cryptoki.CKR_BUFFER_TOO_SMALL, a.RV == cryptoki.CKR_OK && room.Null:
		a.Size = uint32(min(n, 1<<32-1))
	case a.RV != cryptoki.CKR_OK:
	case n > uint64(room.Size):
		*a = *cryptoki.Refuse(cryptoki.CKR_GENERAL_ERROR)
	default:
		a.List, a.Size = make([]uint64, n), uint32(n)
		for i := range a.List {
			a.List[i] = uint64(b.list[i])
		}
	}
}

// attributes reads what the library has made of those that were asked for.
func attributes(first *C.ck_attribute, asked []cryptoki.Attribute) []cryptoki.Attribute {
	all := make([]cryptoki.Attribute, len(asked))
	if len(asked) == 0 {
		return all
	}
	for i, c := range unsafe.Slice(first, len(asked)) {
		a := &all[i]
		a.Type, a.Length = asked[i].Type, uint64(c.length)
		had := asked[i].Length
		if asked[i].Nested != nil {
			had = uint64(len(asked[i].Nested)) * cryptoki.AttributeSize
		}
		switch {
		case c.value == nil || a.Length == cryptoki.Unavailable || a.Length > had:
			// A length, or nothing.
		case asked[i].Nested != nil:
			n := a.Length / cryptoki.AttributeSize
			a.Nested = attributes((*C.ck_attribute)(c.value), asked[i].Nested[:n])
			for j, inner := range unsafe.Slice((*C.ck_attribute)(c.value), n) {
				a.Nested[j].Type = uint64(inner._type) // which the library writes too
			}
		default:
			a.Value = C.GoBytes(c.value, C.int(a.Length))
			if a.Value == nil {
				a.Value = []byte{}
			}
		}
	}
	return all
}

func info(function cryptoki.Function, room unsafe.Pointer) any {
	switch function {
	case cryptoki.GetInfo:
		c := (*C.ck_info)(room)
		i := &cryptoki.LibraryInfo{Cryptoki: version(c.cryptoki), Flags: uint64(c.flags), Library: version(c.library)}
		copyText(i.Manufacturer[:], c.manufacturer[:])
		copyText(i.Description[:], c.description[:])
		return i
	case cryptoki.GetSlotInfo:
		c := (*C.ck_slot_info)(room)
		i := &cryptoki.SlotInfo{Flags: uint64(c.flags), Hardware: version(c.hardware), Firmware: version(c.firmware)}
		copyText(i.Description[:], c.description[:])
		copyText(i.Manufacturer[:], c.manufacturer[:])
		return i
	default:
		c := (*C.ck_token_info)(room)
		i := &cryptoki.TokenInfo{Flags: uint64(c.flags), Hardware: version(c.hardware), Firmware: version(c.firmware)}
		copyText(i.Label[:], c.label[:])
		copyText(i.Manufacturer[:], c.manufacturer[:])
		copyText(i.Model[:], c.model[:])
		copyText(i.Serial[:], c.serial[:])
		copyText(i.UTCTime[:], c.utc_time[:])
		for n, v := range c.counts {
			i.Counts[n] = uint64(v)
		}
		return i
	}
}

func version(v C.ck_version) cryptoki.Version {
	return cryptoki.Version{Major: byte(v.major), Minor: byte(v.minor)}
}

func copyText(dst []byte, src []C.uchar) {
	for i := range dst {
		dst[i] = byte(src[i])
	}
}
