package hsm

import "slices"

// Info describes a token.
type Info struct {
	Manufacturer string
	Model        string
	Serial       string
	Label        string
	Firmware     string // of the token, such as "7.7.1"
	Library      string // description and version of the vendor library
	Role         Role
	// FIPS reports whether the device says it is in FIPS mode; nil when it
	// does not say.
	FIPS *bool
	// Policies of the partition, where the library tells them; usually nil.
	Policies []Policy
	// WrappingAlgorithms the token was seen to perform correctly, strongest
	// first.
	WrappingAlgorithms []WrappingAlgorithm
	// MaxSessions that the token admits at once, 0 when it sets no limit.
	MaxSessions int
}

// Policy is a setting of a partition that its security officer chose, by the
// vendor's number and name. Value is 0 or 1 for switches.
type Policy struct {
	Number int
	Name   string
	Value  int
}

// Role is the user type that a backend logs in as.
type Role string

// The roles of PKCS#11, in Thales' words: the Crypto Officer is CKU_USER.
const (
	CryptoOfficer Role = "crypto-officer"
	CryptoUser    Role = "crypto-user"
)

// WrappingAlgorithm is a way to encrypt a key under an RSA public key, spelled
// as Alibaba Cloud KMS spells it in GetParametersForImport.
type WrappingAlgorithm string

// OAEP means the same hash for the label digest and for MGF1, and an empty
// label (RFC 8017, section 7.1).
const (
	OAEPSHA256 WrappingAlgorithm = "RSAES_OAEP_SHA_256"
	OAEPSHA1   WrappingAlgorithm = "RSAES_OAEP_SHA_1"
	PKCS1v15   WrappingAlgorithm = "RSAES_PKCS1_V1_5"
)

// WrappingAlgorithms lists all algorithms of this package, strongest first.
func WrappingAlgorithms() []WrappingAlgorithm {
	return []WrappingAlgorithm{OAEPSHA256, OAEPSHA1, PKCS1v15}
}

// Valid reports whether a is one of the algorithms of this package.
func (a WrappingAlgorithm) Valid() bool {
	return slices.Contains(WrappingAlgorithms(), a)
}
