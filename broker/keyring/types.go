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
type Key struct {
	Name        string    `json:"name"`
	Backend     string    `json:"backend"`
	Alias       string    `json:"alias,omitempty"` // with its prefix
	Description string    `json:"description,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	// CMKs of all generations, oldest first. Old ones stay, because KMS finds
	// the CMK of a ciphertext by itself and old ciphertexts must stay readable.
	CMKs []CMK `json:"cmks"`
}

// CMK is one customer master key of KMS and the HSM key that is its material.
type CMK struct {
	KeyID             string                `json:"key_id"`
	ARN               string                `json:"arn"`
	Region            string                `json:"region"`
	HSMKeyID          hsm.KeyID             `json:"hsm_key_id"`
	CheckValue        string                `json:"check_value"`
	WrappingAlgorithm hsm.WrappingAlgorithm `json:"wrapping_algorithm"`
	MaterialExpiresAt time.Time             `json:"material_expires_at,omitzero"`
	State             kmsapi.KeyState       `json:"state"` // as KMS last reported it
	CreatedAt         time.Time             `json:"created_at"`
}

// Current is the CMK that new data is encrypted with.
func (k *Key) Current() *CMK { return &k.CMKs[len(k.CMKs)-1] }

// Has reports whether the CMK belongs to the key, in any generation.
func (k *Key) Has(keyID string) bool {
	return slices.ContainsFunc(k.CMKs, func(c CMK) bool { return c.KeyID == keyID })
}

// UsesHSMKey reports whether the HSM key is the material of one of the CMKs.
func (k *Key) UsesHSMKey(backend string, id hsm.KeyID) bool {
	return k.Backend == backend &&
		slices.ContainsFunc(k.CMKs, func(c CMK) bool { return c.HSMKeyID == id })
}

func (k *Key) clone() *Key {
	c := *k
	c.CMKs = slices.Clone(k.CMKs)
	return &c
}

// Import is the journal of an import that has not ended.
type Import struct {
	ID        string     `json:"id"` // tag on the CMK, so that it can be found again
	Name      string     `json:"name"`
	Plan      ImportPlan `json:"plan"`
	StartedAt time.Time  `json:"started_at"`
	// HSMKeyID is chosen before the HSM is asked for the first time.
	HSMKeyID   hsm.KeyID    `json:"hsm_key_id"`
	CheckValue string       `json:"check_value,omitempty"`
	KeyID      string       `json:"key_id,omitempty"` // the CMK
	ARN        string       `json:"arn,omitempty"`
	CreatedAt  time.Time    `json:"created_at,omitzero"`
	Steps      []ImportStep `json:"steps"`
}

// ImportPlan is what the administrator asked for and what was made of it.
type ImportPlan struct {
	Backend           string                `json:"backend"`
	Region            string                `json:"region"`
	Alias             string                `json:"alias,omitempty"`
	Description       string                `json:"description,omitempty"`
	WrappingAlgorithm hsm.WrappingAlgorithm `json:"wrapping_algorithm"`
	MaterialExpiresAt time.Time             `json:"material_expires_at,omitzero"`
	// How the administrator put it: "auto", "90d".
	AskedAlgorithm string `json:"asked_algorithm"`
	AskedExpiry    string `json:"asked_expiry"`
}

// ImportStep records that a step was begun and, unless it was interrupted, when
// it ended.
type ImportStep struct {
	Name    string    `json:"name"`
	Started time.Time `json:"started"`
	Done    time.Time `json:"done,omitzero"`
}

// Step returns the record of a step, nil before it began.
func (i *Import) Step(name string) *ImportStep {
	for n := range i.Steps {
		if i.Steps[n].Name == name {
			return &i.Steps[n]
		}
	}
	return nil
}

// Begun reports whether a step was begun in this or an earlier attempt.
func (i *Import) Begun(name string) bool { return i.Step(name) != nil }

// Completed reports whether a step ended well.
func (i *Import) Completed(name string) bool {
	step := i.Step(name)
	return step != nil && !step.Done.IsZero()
}

// LastStep is the name of the step that was begun last.
func (i *Import) LastStep() string {
	if len(i.Steps) == 0 {
		return ""
	}
	return i.Steps[len(i.Steps)-1].Name
}

func (i *Import) clone() *Import {
	c := *i
	c.Steps = slices.Clone(i.Steps)
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
