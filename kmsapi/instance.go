package kmsapi

import (
	"fmt"
	"regexp"
)

// Wrapping algorithms by which GetParametersForImport and ImportKeyMaterial
// carry symmetric key material, in Alibaba Cloud's spelling.
const (
	WrapOAEPSHA256 = "RSAES_OAEP_SHA_256" // SHA-256 for the hash and for MGF1
	WrapOAEPSHA1   = "RSAES_OAEP_SHA_1"
	WrapPKCS1v15   = "RSAES_PKCS1_V1_5"
)

// WrappingAlgorithms returns what the service accepts for the material of a key,
// the strongest first. Keys of a KMS instance (instanceID is not empty, as in
// CreateKeyRequest) do not take SHA-1 (documentation of GetParametersForImport).
func WrappingAlgorithms(instanceID string) []string {
	if instanceID != "" {
		return []string{WrapOAEPSHA256, WrapPKCS1v15}
	}
	return []string{WrapOAEPSHA256, WrapOAEPSHA1, WrapPKCS1v15}
}

var instancePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// InstanceEndpoint returns the address of the dedicated gateway of a KMS
// instance, such as "kst-bjj66****". It speaks the cryptographic operations alone:
// see [NewSplit]. The ID ends up in CreateKey requests and in a host name, so
// anything that is not a host label is refused.
//
// The gateway's certificate is issued by a private authority, whose file the
// console offers for download: give that and nothing else as RootCAs. It then
// proves that the peer holds a certificate of that authority, not that it is
// Alibaba's, so a client of a gateway is never [Client.Genuine]. Key material
// does not depend on that, because imports go to the management endpoints. What
// does is every plaintext: whoever can replace the file of the authority and
// redirect the name reads them all, so the file needs the protection of the
// configuration itself.
func InstanceEndpoint(instanceID string) (string, error) {
	if !instancePattern.MatchString(instanceID) {
		return "", fmt.Errorf("KMS instance %.100q is not an ID of the form kst-bjj66****", instanceID)
	}
	return instanceID + ".cryptoservice.kms.aliyuncs.com", nil
}
