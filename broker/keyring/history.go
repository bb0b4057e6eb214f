package keyring

import (
	"maps"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Birth is what the HSM said when it made a key.
type Birth struct {
	At         time.Time  `json:"at"`
	Backend    string     `json:"backend"`
	Device     Device     `json:"device"`
	HSMKeyID   hsm.KeyID  `json:"hsm_key_id"`
	CheckValue string     `json:"check_value"`
	Attributes Attributes `json:"attributes"`
}

// Device is which HSM that was.
type Device struct {
	Manufacturer string   `json:"manufacturer"`
	Model        string   `json:"model"`
	Serial       string   `json:"serial"`
	Label        string   `json:"label"`
	Firmware     string   `json:"firmware"`
	Library      string   `json:"library"`
	Role         hsm.Role `json:"role"`
	FIPS         *bool    `json:"fips,omitempty"` // nil: unknown
}

// Attributes are those of PKCS#11 that say how a key was made and what may become
// of it.
type Attributes struct {
	Type             string            `json:"type"`
	Bits             int               `json:"bits"`
	Local            bool              `json:"local"` // generated inside the HSM
	Sensitive        bool              `json:"sensitive"`
	AlwaysSensitive  bool              `json:"always_sensitive"`
	Extractable      bool              `json:"extractable"`
	NeverExtractable bool              `json:"never_extractable"`
	Usages           []string          `json:"usages"` // "encrypt", "wrap", ...
	Vendor           map[string]string `json:"vendor,omitempty"`
}

// AttributesOf is what a key says of itself.
func AttributesOf(key *hsm.Key) Attributes {
	a := Attributes{
		Type: key.Type, Bits: key.Bits, Local: key.Local,
		Sensitive: key.Sensitive, AlwaysSensitive: key.AlwaysSensitive,
		Extractable: key.Extractable, NeverExtractable: key.NeverExtractable,
		Usages: []string{}, Vendor: maps.Clone(key.Vendor),
	}
	for _, usage := range []struct {
		name string
		may  bool
	}{
		{"encrypt", key.Encrypt}, {"decrypt", key.Decrypt}, {"wrap", key.Wrap}, {"unwrap", key.Unwrap},
		{"sign", key.Sign}, {"verify", key.Verify}, {"derive", key.Derive},
	} {
		if usage.may {
			a.Usages = append(a.Usages, usage.name)
		}
	}
	return a
}

// DeviceOf is what a token says of itself.
func DeviceOf(info *hsm.Info) Device {
	return Device{
		Manufacturer: info.Manufacturer, Model: info.Model, Serial: info.Serial, Label: info.Label,
		Firmware: info.Firmware, Library: info.Library, Role: info.Role, FIPS: info.FIPS,
	}
}

// Export is one time that the HSM was asked to wrap a key. It is remembered before
// the HSM is asked, so whether it did is certain only when Imported is set.
type Export struct {
	At                time.Time             `json:"at"`
	HSMKeyID          hsm.KeyID             `json:"hsm_key_id"`
	Region            string                `json:"region"`
	KeyID             string                `json:"key_id"` // the CMK
	Endpoint          string                `json:"endpoint"`
	WrappingAlgorithm hsm.WrappingAlgorithm `json:"wrapping_algorithm"`
	WrappingKeySHA256 string                `json:"wrapping_key_sha256"` // of WrappingKey
	// WrappingKey is the DER SubjectPublicKeyInfo, and Device the HSM that was asked.
	// Records from before these were kept lack them.
	WrappingKey []byte  `json:"wrapping_key,omitempty"`
	Device      *Device `json:"device,omitempty"`
	// Answers of KMS: which request fetched the wrapping key, and which took the
	// material. Imported is empty when none did.
	Parameters string `json:"parameters_request_id,omitempty"`
	Imported   string `json:"import_request_id,omitempty"`
}

// LastExport is the last time that the HSM was asked to wrap for a CMK, nil if it
// never was. It belongs to the key and can be changed in it.
func (k *Key) LastExport(keyID string) *Export {
	for i := range slices.Backward(k.Exports) {
		if k.Exports[i].KeyID == keyID {
			return &k.Exports[i]
		}
	}
	return nil
}

// ImportedAt is when the material of a CMK was imported last, as far as is known.
func (k *Key) ImportedAt(cmk *CMK) time.Time {
	for _, export := range slices.Backward(k.Exports) {
		if export.KeyID == cmk.KeyID && export.Imported != "" {
			return export.At
		}
	}
	return cmk.CreatedAt
}
