package plugin

import (
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"regexp"
	"unicode"
	"unicode/utf8"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/plugin/hsmv1"
)

// Limits of hsm.proto.
const (
	maxString      = 255
	maxVendor      = 16
	maxVendorName  = 64
	maxKeys        = 100_000
	maxKeyBits     = 8 << 20
	maxMaxSessions = 1 << 20
	maxPolicies    = 256
)

// What follows turns answers of a plugin into values of package hsm, and is the
// only place that does. The first thing that is wrong with an answer makes it
// an hsm.Corrupt that names the field.

func corrupt(field, format string, args ...any) error {
	e := hsm.Errorf(hsm.Corrupt, format, args...)
	e.Detail = "the plugin answered with a wrong " + field + ": " + e.Detail
	return e
}

func infoFromProto(m *hsmv1.DescribeResponse) (*hsm.Info, error) {
	info := &hsm.Info{
		Manufacturer: m.GetManufacturer(), Model: m.GetModel(), Serial: m.GetSerial(), Label: m.GetLabel(),
		Firmware: m.GetFirmware(), Library: m.GetLibrary(), Role: hsm.Role(m.GetRole()),
		FIPS: m.Fips, MaxSessions: int(m.GetMaxSessions()),
	}
	for _, s := range []struct{ field, value string }{
		{"manufacturer", info.Manufacturer}, {"model", info.Model}, {"serial", info.Serial},
		{"label", info.Label}, {"firmware", info.Firmware}, {"library", info.Library},
	} {
		if err := checkString(s.field, s.value, maxString); err != nil {
			return nil, err
		}
	}
	if info.Role != hsm.CryptoOfficer && info.Role != hsm.CryptoUser {
		return nil, corrupt("role", "%q", text(m.GetRole(), maxVendorName))
	}
	if m.GetMaxSessions() > maxMaxSessions {
		return nil, corrupt("max_sessions", "%d", m.GetMaxSessions())
	}
	policies, err := checkPolicies(m.GetPolicies())
	if err != nil {
		return nil, err
	}
	info.Policies = policies
	offered := make(map[hsm.WrappingAlgorithm]bool)
	for _, a := range m.GetWrappingAlgorithms() {
		algorithm := hsm.WrappingAlgorithm(a)
		if !algorithm.Valid() || offered[algorithm] {
			return nil, corrupt("wrapping_algorithms", "%q is unknown or repeated", text(a, maxVendorName))
		}
		offered[algorithm] = true
	}
	// The order is ours: strongest first.
	for _, algorithm := range hsm.WrappingAlgorithms() {
		if offered[algorithm] {
			info.WrappingAlgorithms = append(info.WrappingAlgorithms, algorithm)
		}
	}
	return info, nil
}

// tokenFromProto reads which token a PIN is wanted for. Attempts to log in are
// remembered under what it returns.
func tokenFromProto(m *hsmv1.TokenID) (hsm.TokenID, error) {
	token := hsm.TokenID{Manufacturer: m.GetManufacturer(), Model: m.GetModel(), Serial: m.GetSerial()}
	err := cmp.Or(
		checkString("token.manufacturer", token.Manufacturer, maxString),
		checkString("token.model", token.Model, maxString),
		checkName("token.serial", token.Serial),
	)
	if err != nil {
		return hsm.TokenID{}, err
	}
	return token, nil
}

func tokenToProto(token hsm.TokenID) *hsmv1.TokenID {
	return &hsmv1.TokenID{Manufacturer: token.Manufacturer, Model: token.Model, Serial: token.Serial}
}

func checkPolicies(all []*hsmv1.Policy) ([]hsm.Policy, error) {
	if len(all) > maxPolicies {
		return nil, corrupt("policies", "%d of them", len(all))
	}
	var policies []hsm.Policy
	seen := make(map[uint32]bool)
	for _, p := range all {
		if seen[p.GetNumber()] {
			return nil, corrupt("policies", "number %d is repeated", p.GetNumber())
		}
		seen[p.GetNumber()] = true
		if err := checkName("policies", p.GetName()); err != nil {
			return nil, err
		}
		policies = append(policies, hsm.Policy{Number: int(p.GetNumber()), Name: p.GetName(), Value: int(p.GetValue())})
	}
	return policies, nil
}

// keyFromProto reads the answer about the key that was asked for.
func keyFromProto(m *hsmv1.Key, asked hsm.KeyID) (*hsm.Key, error) {
	if m == nil {
		return nil, corrupt("key", "it is missing")
	}
	if err := checkID(m.GetId(), asked); err != nil {
		return nil, err
	}
	return listedKey(m)
}

// generatedKey reads the answer to GenerateKey, whose key is known in advance.
func generatedKey(m *hsmv1.Key, asked hsm.KeyID) (*hsm.Key, error) {
	key, err := keyFromProto(m, asked)
	if err != nil {
		return nil, err
	}
	if key.Type != "AES" || key.Bits != 256 || !key.Sensitive || !key.Extractable {
		return nil, corrupt("key", "it is not a sensitive, extractable AES-256 key")
	}
	return key, nil
}

// sealedKey reads the answer to SealKey.
func sealedKey(m *hsmv1.Key, asked hsm.KeyID) (*hsm.Key, error) {
	key, err := keyFromProto(m, asked)
	if err != nil {
		return nil, err
	}
	if key.Extractable {
		return nil, corrupt("key", "it is sealed and extractable")
	}
	return key, nil
}

var keyType = regexp.MustCompile(`^(AES|0x[0-9a-f]{1,8})?$`)

// listedKey reads a key in a list, where the ID may be empty.
func listedKey(m *hsmv1.Key) (*hsm.Key, error) {
	id := hsm.KeyIDFromBytes(m.GetId())
	if id != "" {
		if _, err := hsm.ParseKeyID(string(id)); err != nil {
			return nil, corrupt("id", "it has %d bytes", len(m.GetId()))
		}
	}
	if err := checkString("label", m.GetLabel(), maxString); err != nil {
		return nil, err
	}
	if !keyType.MatchString(m.GetType()) {
		return nil, corrupt("type", "%q", text(m.GetType(), maxVendorName))
	}
	if m.GetBits() > maxKeyBits {
		return nil, corrupt("bits", "%d", m.GetBits())
	}
	vendor, err := checkVendor(m.GetVendor())
	if err != nil {
		return nil, err
	}
	return &hsm.Key{
		ID: id, Label: m.GetLabel(), Type: m.GetType(), Bits: int(m.GetBits()),
		Private: m.GetPrivate(), Sensitive: m.GetSensitive(), AlwaysSensitive: m.GetAlwaysSensitive(),
		Extractable: m.GetExtractable(), NeverExtractable: m.GetNeverExtractable(),
		Local: m.GetLocal(), Modifiable: m.GetModifiable(),
		Encrypt: m.GetEncrypt(), Decrypt: m.GetDecrypt(), Wrap: m.GetWrap(), Unwrap: m.GetUnwrap(),
		Sign: m.GetSign(), Verify: m.GetVerify(), Derive: m.GetDerive(), Vendor: vendor,
	}, nil
}

func checkVendor(vendor map[string]string) (map[string]string, error) {
	if len(vendor) > maxVendor {
		return nil, corrupt("vendor", "%d attributes", len(vendor))
	}
	for name, value := range vendor {
		if err := checkString("vendor", name, maxVendorName); err != nil {
			return nil, err
		}
		if err := checkString("vendor", value, maxString); err != nil {
			return nil, err
		}
	}
	return vendor, nil
}

func checkValueFromProto(m *hsmv1.CheckValueResponse, asked hsm.KeyID) (hsm.CheckValue, error) {
	if err := checkID(m.GetId(), asked); err != nil {
		return hsm.CheckValue{}, err
	}
	if len(m.GetValue()) != len(hsm.CheckValue{}) {
		return hsm.CheckValue{}, corrupt("value", "a check value has three bytes, this one %d", len(m.GetValue()))
	}
	return hsm.CheckValue(m.GetValue()), nil
}

// wrappedFromProto reads the answer to a wrap under a modulus of size bytes.
func wrappedFromProto(m *hsmv1.WrapResponse, asked hsm.WrapRequest, size int) ([]byte, error) {
	if err := checkID(m.GetId(), asked.Key); err != nil {
		return nil, err
	}
	if m.GetAlgorithm() != string(asked.Algorithm) {
		return nil, corrupt("algorithm", "%q, asked was %s", text(m.GetAlgorithm(), maxVendorName), asked.Algorithm)
	}
	if len(m.GetWrapped()) != size {
		return nil, corrupt("wrapped", "%d bytes under a modulus of %d", len(m.GetWrapped()), size)
	}
	return m.GetWrapped(), nil
}

// modulusSize is the length in bytes of what an RSA key encrypts to.
func modulusSize(spki []byte) (int, error) {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return 0, hsm.Errorf(hsm.Invalid, "wrapping key: %v", err)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return 0, hsm.Errorf(hsm.Invalid, "wrapping key is a %T, not RSA", key)
	}
	return public.Size(), nil
}

func checkID(got []byte, asked hsm.KeyID) error {
	if hsm.KeyIDFromBytes(got) != asked {
		return corrupt("id", "%s, asked was %s", text(string(hsm.KeyIDFromBytes(got)), 2*maxVendorName), asked)
	}
	return nil
}

// checkName is checkString for what must not be empty.
func checkName(field, s string) error {
	if s == "" {
		return corrupt(field, "it is empty")
	}
	return checkString(field, s, maxString)
}

func checkString(field, s string, limit int) error {
	if len(s) > limit || !utf8.ValidString(s) {
		return corrupt(field, "it has %d bytes, or is not UTF-8", len(s))
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return corrupt(field, "it contains %q", r)
		}
	}
	return nil
}
