package emulator

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const (
	originKMS      = "Aliyun_KMS"
	originExternal = "EXTERNAL"
	specAES256     = "Aliyun_AES_256"
	usageEncrypt   = "ENCRYPT/DECRYPT"

	materialSize = 32 // bytes of an Aliyun_AES_256 key
)

// account is the ID of the one account that the emulator has.
const account = "1000000000000001"

// key is a CMK. One that is published in a region never changes: an operation
// changes a clone and commits that.
type key struct {
	ID              string
	Instance        string `json:",omitempty"` // the KMS instance that it is in
	Origin          string
	ProtectionLevel string
	Description     string    `json:",omitempty"`
	CreatedAt       time.Time // with all its digits, so that lists keep their order
	State           state
	DeleteAt        time.Time `json:",omitzero"` // in PendingDeletion only
	Protected       bool      `json:",omitempty"`
	ProtectedWhy    string    `json:",omitempty"`
	Tags            []tag     `json:",omitempty"`

	// Version is the ID of the primary version of the key, empty until the
	// first import. It outlives the material, so that ciphertexts open again
	// after a re-import.
	Version          string    `json:",omitempty"`
	VersionCreatedAt time.Time `json:",omitzero"`
	// Older are the versions that rotation replaced, oldest first.
	Older            []olderVersion `json:",omitempty"`
	RotationInterval time.Duration  `json:",omitempty"` // 0: the key does not rotate
	RotateAt         time.Time      `json:",omitzero"`
	RotatedAt        time.Time      `json:",omitzero"`
	// Fingerprint is of the only material that may ever be imported. It is kept
	// when the material goes.
	Fingerprint       []byte    `json:",omitempty"`
	Material          []byte    `json:",omitempty"`
	MaterialExpiresAt time.Time `json:",omitzero"`

	// Policy is the key policy; empty for the default one.
	Policy string `json:",omitempty"`
	// Imports counts how often material was imported.
	Imports int `json:",omitempty"`

	aead   cipher.AEAD     // of Material; nil without it
	policy policy.Document // of Policy
}

func (k *key) clone() *key {
	c := *k
	c.Tags = slices.Clone(k.Tags)
	return &c
}

// setMaterial gives the key its material until expiresAt, for ever when that is
// zero.
func (k *key) setMaterial(material []byte, expiresAt time.Time) error {
	aead, err := newAEAD(material)
	if err != nil {
		return fmt.Errorf("key %s: %w", k.ID, err)
	}
	k.Material, k.MaterialExpiresAt, k.aead = material, expiresAt, aead
	return nil
}

func newAEAD(material []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(material)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// dropMaterial deletes the material. A key that is waiting for its deletion goes
// on waiting.
func (k *key) dropMaterial() {
	k.Material, k.MaterialExpiresAt, k.aead = nil, time.Time{}, nil
	if k.State != pendingDeletion {
		k.State = pendingImport
	}
}

// fingerprint identifies material within one key without giving it away.
func (k *key) fingerprint(material []byte) []byte {
	sum := sha256.Sum256(slices.Concat([]byte(k.ID), material))
	return sum[:]
}

// nextEvent is the earliest time at which something happens to the key by
// itself, zero when nothing will.
func (k *key) nextEvent() time.Time {
	var next time.Time
	for _, at := range []time.Time{k.DeleteAt, k.MaterialExpiresAt, k.rotationDue()} {
		if next.IsZero() || !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// older orders keys as lists show them.
func older(a, b *key) int {
	if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

func (r *region) metadata(k *key) wire.KeyMetadata {
	m := wire.KeyMetadata{
		KeyID:             k.ID,
		Arn:               r.arn("key/" + k.ID),
		KeyState:          string(k.State),
		KeyUsage:          usageEncrypt,
		KeySpec:           specAES256,
		Origin:            k.Origin,
		ProtectionLevel:   k.ProtectionLevel,
		Description:       k.Description,
		Creator:           account,
		CreationDate:      wire.Time(k.CreatedAt),
		PrimaryKeyVersion: k.Version,
		DeleteDate:        wire.Time(k.DeleteAt),
		MaterialExpire:    wire.Time(k.MaterialExpiresAt),
		Instance:          k.Instance,
	}
	k.rotationMetadata(&m)
	return m
}

// arn is the name of a resource in every account and region.
func (r *region) arn(resource string) string {
	return "acs:kms:" + r.name + ":" + account + ":" + resource
}
