package module

// #include "call.h"
import "C"

import (
	"unsafe"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

func (b *builder) mechanism(m *cryptoki.Mechanism) *C.ck_mechanism {
	c := &C.ck_mechanism{_type: C.ck_ulong(m.Type)}
	switch p := m.Parameter.(type) {
	case cryptoki.Bytes:
		c.parameter, c.length = b.bytes(p), C.ck_ulong(len(p))
	case cryptoki.Number:
		n := C.ck_ulong(p)
		c.parameter, c.length = pin(b, &n), cryptoki.UlongSize
	case *cryptoki.PSS:
		c.parameter = pin(b, &C.ck_pss{hash: C.ck_ulong(p.Hash), mgf: C.ck_ulong(p.MGF), salt: C.ck_ulong(p.SaltLength)})
		c.length = C.sizeof_ck_pss
	case *cryptoki.OAEP:
		c.parameter = pin(b, &C.ck_oaep{
			hash: C.ck_ulong(p.Hash), mgf: C.ck_ulong(p.MGF), source: C.ck_ulong(p.Source),
			data: b.bytes(p.SourceData), length: C.ck_ulong(len(p.SourceData)),
		})
		c.length = C.sizeof_ck_oaep
	case *cryptoki.ECDH1:
		c.parameter = pin(b, &C.ck_ecdh1{
			kdf:    C.ck_ulong(p.KDF),
			shared: b.bytes(p.SharedData), shared_length: C.ck_ulong(len(p.SharedData)),
			public_data: b.bytes(p.PublicData), public_length: C.ck_ulong(len(p.PublicData)),
		})
		c.length = C.sizeof_ck_ecdh1
	case *cryptoki.CTR:
		ctr := &C.ck_ctr{bits: C.ck_ulong(p.CounterBits)}
		for i, v := range p.Counter {
			ctr.counter[i] = C.uchar(v)
		}
		c.parameter, c.length = pin(b, ctr), C.sizeof_ck_ctr
	case *cryptoki.GCM:
		c.parameter = pin(b, &C.ck_gcm{
			iv: b.bytes(p.IV), iv_length: C.ck_ulong(len(p.IV)), iv_bits: C.ck_ulong(min(p.IVBits, 8*uint64(len(p.IV)))), // beyond it is nothing of the caller's
			aad: b.bytes(p.AAD), aad_length: C.ck_ulong(len(p.AAD)), tag_bits: C.ck_ulong(p.TagBits),
		})
		c.length = C.sizeof_ck_gcm
	}
	return (*C.ck_mechanism)(pin(b, c))
}

// template makes attributes with their values or, to be read, with room for them.
func (b *builder) template(attributes []cryptoki.Attribute, forReading bool) *C.ck_attribute {
	if attributes == nil {
		return nil
	}
	all := make([]C.ck_attribute, max(1, len(attributes)))
	for i := range attributes {
		a, c := &attributes[i], &all[i]
		c._type, c.length = C.ck_ulong(a.Type), C.ck_ulong(a.Length)
		switch {
		case a.Nested != nil:
			c.value = unsafe.Pointer(b.template(a.Nested, forReading))
			c.length = C.ck_ulong(len(a.Nested)) * cryptoki.AttributeSize
		case forReading && a.Length > maxRoom:
			c.length = 0 // the library tells the length and no more
		case forReading && a.Length > 0:
			// Words, in case that the library writes numbers.
			words := make([]C.ck_ulong, (a.Length+cryptoki.UlongSize-1)/cryptoki.UlongSize)
			c.value = pin(b, unsafe.SliceData(words))
		case !forReading:
			c.value = b.bytes(a.Value)
		}
	}
	return (*C.ck_attribute)(pin(b, unsafe.SliceData(all)))
}
