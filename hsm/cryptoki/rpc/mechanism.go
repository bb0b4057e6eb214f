package rpc

import "github.com/kmsbroker/kmsbroker/hsm/cryptoki"

// noMechanism stands for a mechanism that is NULL.
const noMechanism = 0xffffffff

// bare are the mechanisms of which p11-kit knows that they have no parameter. From
// version 2 on nothing follows their number.
func bare(mechanism uint64) bool { return bareMechanisms[mechanism] }

// mechanism writes a mechanism with its parameter.
func (w *writer) mechanism(v Version, m *cryptoki.Mechanism) {
	if m == nil {
		w.uint32(noMechanism)
		return
	}
	if m.Type >= noMechanism {
		w.fail("mechanism %#x has no place in the protocol", m.Type)
		return
	}
	w.uint32(uint32(m.Type))
	switch {
	case v >= 2 && bare(m.Type):
		return // a parameter that somebody gave all the same has no place, and no use
	case v >= 2 && m.Parameter == nil:
		w.byte(0)
		return
	case v >= 2:
		w.byte(1)
	case m.Parameter == nil && shapeOf(m.Type) == asBytes:
		w.bytes(nil)
		return
	case m.Parameter == nil:
		w.fail("mechanism %#x has no parameter, for which the protocol has no place", m.Type)
		return
	}
	w.parameter(m.Parameter)
}

func (w *writer) parameter(parameter cryptoki.Parameter) {
	switch p := parameter.(type) {
	case cryptoki.Bytes:
		w.bytes(p)
	case cryptoki.Number:
		w.uint64(uint64(p))
	case *cryptoki.PSS:
		w.uint64(p.Hash)
		w.uint64(p.MGF)
		w.uint64(p.SaltLength)
	case *cryptoki.OAEP:
		w.uint64(p.Hash)
		w.uint64(p.MGF)
		w.uint64(p.Source)
		w.bytes(p.SourceData)
	case *cryptoki.ECDH1:
		w.uint64(p.KDF)
		w.bytes(p.SharedData)
		w.bytes(p.PublicData)
	case *cryptoki.CTR:
		w.uint64(p.CounterBits)
		w.bytes(p.Counter[:])
	case *cryptoki.GCM:
		w.bytes(p.IV)
		w.uint64(p.IVBits)
		w.bytes(p.AAD)
		w.uint64(p.TagBits)
	}
}

// mechanism reads a mechanism with its parameter, nil for NULL.
func (r *reader) mechanism(v Version) *cryptoki.Mechanism {
	number := r.uint32()
	if r.err != nil || number == noMechanism {
		return nil
	}
	m := &cryptoki.Mechanism{Type: uint64(number)}
	switch {
	case v < 2 && shapeOf(m.Type) == asBytes:
		if b := r.bytes(); b != nil {
			m.Parameter = cryptoki.Bytes(b)
		}
		return m
	case v >= 2 && (bare(m.Type) || r.byte() == 0):
		return m
	}
	m.Parameter = r.parameter(m.Type)
	return m
}

func (r *reader) parameter(mechanism uint64) cryptoki.Parameter {
	switch shapeOf(mechanism) {
	case asPSS:
		return &cryptoki.PSS{Hash: r.uint64(), MGF: r.uint64(), SaltLength: r.uint64()}
	case asOAEP:
		return &cryptoki.OAEP{Hash: r.uint64(), MGF: r.uint64(), Source: r.uint64(), SourceData: r.bytes()}
	case asECDH1:
		return &cryptoki.ECDH1{KDF: r.uint64(), SharedData: r.bytes(), PublicData: r.bytes()}
	case asCTR:
		p := &cryptoki.CTR{CounterBits: r.uint64()}
		r.fixed(p.Counter[:])
		return p
	case asGCM:
		return &cryptoki.GCM{IV: r.bytes(), IVBits: r.uint64(), AAD: r.bytes(), TagBits: r.uint64()}
	case asNumber:
		return cryptoki.Number(r.uint64())
	default:
		return cryptoki.Bytes(r.bytes())
	}
}

// shape is how the parameter of a mechanism is encoded.
type shape int

const (
	asBytes shape = iota // an IV, a public value, nothing
	asPSS
	asOAEP
	asECDH1
	asCTR
	asGCM
	asNumber
)

func shapeOf(mechanism uint64) shape {
	switch mechanism {
	case cryptoki.CKM_RSA_PKCS_PSS, cryptoki.CKM_SHA1_RSA_PKCS_PSS, cryptoki.CKM_SHA224_RSA_PKCS_PSS,
		cryptoki.CKM_SHA256_RSA_PKCS_PSS, cryptoki.CKM_SHA384_RSA_PKCS_PSS, cryptoki.CKM_SHA512_RSA_PKCS_PSS:
		return asPSS
	case cryptoki.CKM_RSA_PKCS_OAEP:
		return asOAEP
	case cryptoki.CKM_ECDH1_DERIVE:
		return asECDH1
	case cryptoki.CKM_AES_CTR:
		return asCTR
	case cryptoki.CKM_AES_GCM:
		return asGCM
	case cryptoki.CKM_SHA_1_HMAC_GENERAL, cryptoki.CKM_SHA224_HMAC_GENERAL, cryptoki.CKM_SHA256_HMAC_GENERAL,
		cryptoki.CKM_SHA384_HMAC_GENERAL, cryptoki.CKM_SHA512_HMAC_GENERAL, cryptoki.CKM_SHA512_224_HMAC_GENERAL,
		cryptoki.CKM_SHA512_256_HMAC_GENERAL, cryptoki.CKM_AES_MAC_GENERAL, cryptoki.CKM_AES_CMAC_GENERAL,
		cryptoki.CKM_DES3_MAC_GENERAL, cryptoki.CKM_DES3_CMAC_GENERAL:
		return asNumber
	default:
		return asBytes
	}
}
