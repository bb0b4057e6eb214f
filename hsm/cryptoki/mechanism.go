package cryptoki

import "fmt"

// MechanismName is the name of a mechanism in the standard, or its number.
func MechanismName(mechanism uint64) string {
	if name, ok := mechanismNames[mechanism]; ok {
		return name
	}
	return fmt.Sprintf("CKM_0x%08X", mechanism)
}

// Sound reports whether a library can take the parameter for what it is. The parameters
// of many mechanisms are structures with pointers, handles or lengths in them, and as
// plain [Bytes] these would be of the caller's choice. So bytes are for mechanisms of
// which it is known that their parameter is bytes.
func (m *Mechanism) Sound() bool {
	b, ok := m.Parameter.(Bytes)
	return !ok || len(b) == 0 || plain[m.Type]
}

// plain are the mechanisms whose parameter is an initialisation vector or another string
// of bytes.
var plain = map[uint64]bool{
	CKM_AES_CBC: true, CKM_AES_CBC_PAD: true, CKM_AES_CTS: true, CKM_AES_OFB: true,
	CKM_AES_CFB1: true, CKM_AES_CFB8: true, CKM_AES_CFB64: true, CKM_AES_CFB128: true,
	CKM_AES_KEY_WRAP: true, CKM_AES_KEY_WRAP_PAD: true, CKM_AES_GMAC: true,
	CKM_DES_CBC: true, CKM_DES_CBC_PAD: true, CKM_DES_CFB8: true, CKM_DES_CFB64: true,
	CKM_DES_OFB8: true, CKM_DES_OFB64: true, CKM_DES3_CBC: true, CKM_DES3_CBC_PAD: true,
	CKM_CAMELLIA_CBC: true, CKM_CAMELLIA_CBC_PAD: true, CKM_ARIA_CBC: true, CKM_ARIA_CBC_PAD: true,
	CKM_SEED_CBC: true, CKM_SEED_CBC_PAD: true,
	CKM_DH_PKCS_DERIVE: true, // the other's public value
}
