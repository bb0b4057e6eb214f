// Package cryptoki is PKCS#11 as values: a [Call] of one of its C functions with
// everything that the caller passed, and the [Answer] with everything that came
// back. Package rpc below it carries both over p11-kit's protocol, and package module
// makes a call of a library.
//
// It exists for the PKCS#11 proxy, whose answers have to equal those of the device:
// a binding for programmers hides lengths, partial results and return codes that an
// application may depend on. Nothing here is C, and nothing knows a device.
//
// Names and numbers are those of PKCS#11 2.40 (OASIS, "PKCS #11 Cryptographic Token
// Interface Base Specification Version 2.40").
package cryptoki

// RV is the return value of a function, CK_RV.
type RV uint64

// Error implements error, so that a return value can travel as one. CKR_OK is no
// error and must not be returned as one.
func (rv RV) Error() string { return rv.String() }

// Unavailable is CK_UNAVAILABLE_INFORMATION: the length of an attribute that cannot be
// had, and the count that a token does not tell.
const Unavailable = ^uint64(0)

// Call is one call of a C function. Which fields matter is said by Function; handles
// and other numbers are in the order of the function's parameters.
type Call struct {
	Function Function
	// Numbers are the parameters of type CK_ULONG: handles, slots, flags, lengths
	// that stand alone. The session comes first where there is one.
	Numbers [4]uint64
	// Flag is a parameter of one byte: tokenPresent of C_GetSlotList.
	Flag bool
	// Data are parameters with bytes that are passed in. One that is nil was NULL.
	Data [2][]byte
	// Mechanism is nil when it was NULL, which ends an operation.
	Mechanism *Mechanism
	// Templates are parameters with attributes. For C_GetAttributeValue the first
	// says which attributes are asked for, and Length of each for how many bytes there
	// is room.
	Templates [2][]Attribute
	// Room is what the caller has for the bytes or numbers that come back.
	Room Room
}

// Session is the handle of the call's session, for functions that have one.
func (c *Call) Session() uint64 { return c.Numbers[0] }

// Room is a buffer that the caller provides, without the buffer.
type Room struct {
	// Size is how many bytes or numbers it holds.
	Size uint32
	// Null says that there is no buffer: the caller asks how much it would need.
	Null bool
}

// Mechanism is CK_MECHANISM.
type Mechanism struct {
	Type uint64
	// Parameter is one of the types of this package for mechanisms whose parameter is a
	// C structure, [Bytes] for one that is bytes, and nil for none.
	Parameter Parameter
}

// Parameter is the parameter of a mechanism: Bytes, *PSS, *OAEP, *ECDH1, *CTR, *GCM or
// Number.
type Parameter interface{ parameter() }

// Bytes is a parameter that is a string of bytes, such as an initialisation vector.
type Bytes []byte

// Number is a parameter of type CK_ULONG, such as the length of a MAC in bytes.
type Number uint64

// PSS is CK_RSA_PKCS_PSS_PARAMS.
type PSS struct {
	Hash, MGF  uint64 // CKM_, CKG_
	SaltLength uint64 // bytes
}

// OAEP is CK_RSA_PKCS_OAEP_PARAMS.
type OAEP struct {
	Hash, MGF, Source uint64 // CKM_, CKG_, CKZ_
	SourceData        []byte // nil is NULL
}

// ECDH1 is CK_ECDH1_DERIVE_PARAMS.
type ECDH1 struct {
	KDF                    uint64 // CKD_
	SharedData, PublicData []byte // nil is NULL
}

// CTR is CK_AES_CTR_PARAMS.
type CTR struct {
	CounterBits uint64
	Counter     [16]byte
}

// GCM is CK_GCM_PARAMS.
type GCM struct {
	IV      []byte // nil is NULL
	IVBits  uint64
	AAD     []byte // nil is NULL
	TagBits uint64
}

func (Bytes) parameter()  {}
func (Number) parameter() {}
func (*PSS) parameter()   {}
func (*OAEP) parameter()  {}
func (*ECDH1) parameter() {}
func (*CTR) parameter()   {}
func (*GCM) parameter()   {}

// Answer is what a call came back with.
type Answer struct {
	RV RV
	// Numbers are the results of type CK_ULONG, in the order of the parameters, and
	// the fields of CK_SESSION_INFO and CK_MECHANISM_INFO.
	Numbers [4]uint64
	// Data are the bytes that came back. It is nil, and Size says how many there
	// would be, when the caller had no room for them.
	Data []byte
	// List are the slots, mechanisms or objects that came back; nil when the caller
	// had no room for them, see Data.
	List []uint64
	Size uint32
	// Attributes are those that were asked for, in that order.
	Attributes []Attribute
	// Info is *LibraryInfo, *SlotInfo or *TokenInfo, for the functions that give one.
	Info any
}

// Refuse is an answer without results.
func Refuse(rv RV) *Answer { return &Answer{RV: rv} }

// Version is CK_VERSION.
type Version struct{ Major, Minor byte }

// LibraryInfo is CK_INFO. Texts are padded with blanks.
type LibraryInfo struct {
	Cryptoki     Version
	Manufacturer [32]byte
	Flags        uint64
	Description  [32]byte
	Library      Version
}

// SlotInfo is CK_SLOT_INFO. Texts are padded with blanks.
type SlotInfo struct {
	Description        [64]byte
	Manufacturer       [32]byte
	Flags              uint64
	Hardware, Firmware Version
}

// TokenInfo is CK_TOKEN_INFO. Texts are padded with blanks.
type TokenInfo struct {
	Label, Manufacturer [32]byte
	Model, Serial       [16]byte
	Flags               uint64
	// Counts are ulMaxSessionCount and the nine that follow it.
	Counts             [10]uint64
	Hardware, Firmware Version
	UTCTime            [16]byte
}

// Pad fills dst with a text and blanks, as texts in the structures are.
func Pad(dst []byte, text string) {
	for i := copy(dst, text); i < len(dst); i++ {
		dst[i] = ' '
	}
}
