package keyring

import (
	"regexp"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Key is a name bound to the CMKs that it stands for and to the HSM keys that
// are their material.
//
// A generation is one HSM key and the CMKs that hold it as their material, one in
// each region of the key. Rotation adds a generation.
type Key struct {
	Name        string    `json:"name"`
	Backend     string    `json:"backend,omitempty"` // empty: adopted without an HSM key
	Region      string    `json:"region"`            // the home region
	Alias       string    `json:"alias,omitempty"`   // with its prefix
	Description string    `json:"description,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	Renewal     Renewal   `json:"renewal,omitzero"`
	// CMKs of all generations and regions, oldest first. Old ones stay, because
	// KMS finds the CMK of a ciphertext by itself and old ciphertexts must stay
	// readable.
	CMKs []CMK `json:"cmks"`
	// Births and Exports are the history of the HSM keys: one birth for each
	// generation, one export for each time that one was wrapped.
	Births  []Birth  `json:"births,omitempty"`
	Exports []Export `json:"exports,omitempty"`
	// Observed are HSM keys that were adopted: what the HSM said of each then. Nobody
	// here saw them made.
	Observed []Birth `json:"observed,omitempty"`
}

// CMK is one customer master key of KMS and the HSM key that is its material.
type CMK struct {
	KeyID             string                `json:"key_id"`
	ARN               string                `json:"arn"`
	Region            string                `json:"region"`
	HSMKeyID          hsm.KeyID             `json:"hsm_key_id,omitempty"`
	CheckValue        string                `json:"check_value,omitempty"`
	WrappingAlgorithm hsm.WrappingAlgorithm `json:"wrapping_algorithm,omitempty"`
	MaterialExpiresAt time.Time             `json:"material_expires_at,omitzero"`
	State             kmsapi.KeyState       `json:"state"` // as KMS last reported it
	CreatedAt         time.Time             `json:"created_at"`
	Renewed           RenewalOutcome        `json:"renewed,omitzero"`
	// MaterialDeletedAt is when the material was deleted, or found to be, before its
	// time: on purpose, so the daemon does not bring it back.
	MaterialDeletedAt time.Time `json:"material_deleted_at,omitzero"`
	// CreateRequestID is of the CreateKey that made the CMK, "" if its answer was lost.
	CreateRequestID string `json:"create_request_id,omitempty"`
	// AdoptedAt is since when the broker knows a CMK that it did not make; what
	// happened to it before is not in its history.
	AdoptedAt time.Time `json:"adopted_at,omitzero"`
	// SealedAt is when the HSM key was made unextractable for ever.
	SealedAt time.Time `json:"sealed_at,omitzero"`
}

// Renewal says that the daemon imports expiring material again ahead of time.
type Renewal struct {
	Ahead    time.Duration `json:"ahead"`    // before the expiry
	Lifetime time.Duration `json:"lifetime"` // of the material after it
}

// RenewalOutcome is how the daemon's last attempt at it went.
type RenewalOutcome struct {
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"`
}

// Current is the CMK of the home region that new data is encrypted with; as long
// as that region is not finished, the newest of the others, to be shown.
func (k *Key) Current() *CMK {
	cmk, ok := k.CurrentIn(k.Region)
	if !ok {
		return &k.CMKs[len(k.CMKs)-1]
	}
	return cmk
}

// CurrentIn is the CMK of a region that new data is encrypted with.
func (k *Key) CurrentIn(region string) (*CMK, bool) {
	for i, cmk := range slices.Backward(k.CMKs) {
		if cmk.Region == region {
			return &k.CMKs[i], true
		}
	}
	return nil, false
}

// Regions of the key, the home region first.
func (k *Key) Regions() []string {
	regions := []string{k.Region}
	for _, cmk := range k.CMKs {
		if !slices.Contains(regions, cmk.Region) {
			regions = append(regions, cmk.Region)
		}
	}
	return regions
}

// CurrentCMKs are those that new data is encrypted with, one for each region.
func (k *Key) CurrentCMKs() []*CMK {
	var current []*CMK
	for _, region := range k.Regions() {
		if cmk, ok := k.CurrentIn(region); ok {
			current = append(current, cmk)
		}
	}
	return current
}

// CMK returns the CMK of that ID, of any generation.
func (k *Key) CMK(keyID string) (*CMK, bool) {
	i := slices.IndexFunc(k.CMKs, func(c CMK) bool { return c.KeyID == keyID })
	if i < 0 {
		return nil, false
	}
	return &k.CMKs[i], true
}

// UsesHSMKey reports whether the HSM key is the material of one of the CMKs.
func (k *Key) UsesHSMKey(backend string, id hsm.KeyID) bool {
	return k.Backend == backend &&
		slices.ContainsFunc(k.CMKs, func(c CMK) bool { return c.HSMKeyID == id })
}

func (k *Key) clone() *Key {
	c := *k
	c.CMKs, c.Births, c.Exports, c.Observed = slices.Clone(k.CMKs), slices.Clone(k.Births), slices.Clone(k.Exports), slices.Clone(k.Observed)
	return &c
}

// Names of keys and backends: what is safe in a file name, a glob and a CKA_LABEL.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$`)

// CheckName refuses what cannot be the name of a key.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return failure.New(failure.Invalid, "KEY_NAME",
			"key name %.80q is not 1 to 48 letters, digits, dots, dashes or underscores that begin with a letter or digit", name)
	}
	return nil
}
