package rpc

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// shapes are the parameters as docs/pkcs11.md calls them.
var shapes = map[string]shape{
	"none": asBytes, "bytes": asBytes, "`CK_RSA_PKCS_PSS_PARAMS`": asPSS, "`CK_RSA_PKCS_OAEP_PARAMS`": asOAEP,
	"`CK_ECDH1_DERIVE_PARAMS`": asECDH1, "`CK_AES_CTR_PARAMS`": asCTR, "`CK_GCM_PARAMS`": asGCM, "`CK_MAC_GENERAL_PARAMS`": asNumber,
}

// TestDocument: docs/pkcs11.md has every mechanism with a structure for a parameter, and
// those that it has are carried as it says.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/pkcs11.md")
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]uint64{}
	for n := range uint64(0x2000) {
		numbers[cryptoki.MechanismName(n)] = n
	}
	documented := map[uint64]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| ([^|]+) \\| ([^|]*`CKM_[^|]*) \\| 0\\.2[45] \\|$").FindAllStringSubmatch(string(text), -1) {
		want, ok := shapes[row[1]]
		if !ok {
			t.Errorf("what is a parameter %s?", row[1])
			continue
		}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			n, ok := numbers[name[1]]
			if !ok {
				t.Errorf("there is no mechanism %s", name[1])
				continue
			}
			if documented[n] = true; shapeOf(n) != want || bare(n) != (row[1] == "none") {
				t.Errorf("docs/pkcs11.md has %s with the parameter %s", name[1], row[1])
			}
		}
	}
	for n := range uint64(0x2000) {
		if shapeOf(n) != asBytes && !documented[n] {
			t.Errorf("docs/pkcs11.md lacks %s", cryptoki.MechanismName(n))
		}
	}
	if !strings.Contains(string(text), "| 0.25.6 to 0.26.4 | 2 |") || Latest != 2 {
		t.Error("docs/pkcs11.md is about other versions of the protocol")
	}
}
