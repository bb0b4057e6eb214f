package cryptoki

import "fmt"

// MechanismName is the name of a mechanism in the standard, or its number.
func MechanismName(mechanism uint64) string {
	if name, ok := mechanismNames[mechanism]; ok {
		return name
	}
	return fmt.Sprintf("CKM_0x%08X", mechanism)
}
