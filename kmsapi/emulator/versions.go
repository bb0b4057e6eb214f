package emulator

import (
	"crypto/cipher"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// keyVersion is a version of a key. Rotation makes new ones; a key with imported
// material has one at most.
type keyVersion struct {
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	CreationDate string
}

// olderVersion is a version that encrypts no more. What it encrypted opens for
// ever.
type olderVersion struct {
	ID        string
	CreatedAt time.Time
	Material  []byte

	aead cipher.AEAD // of Material
}

// keyVersions lists the versions, oldest first.
func (k *key) keyVersions() []keyVersion {
	var list []keyVersion
	for _, v := range k.Older {
		list = append(list, keyVersion{k.ID, v.ID, wire.Time(v.CreatedAt)})
	}
	if k.Version != "" {
		list = append(list, keyVersion{k.ID, k.Version, wire.Time(k.VersionCreatedAt)})
	}
	return list
}

// sealer is the cipher of a version, nil without one.
func (k *key) sealer(version string) cipher.AEAD {
	if version == k.Version {
		return k.aead
	}
	i := slices.IndexFunc(k.Older, func(v olderVersion) bool { return v.ID == version })
	if i < 0 {
		return nil
	}
	return k.Older[i].aead
}

type keyVersionList struct {
	wire.Page
	KeyVersions struct {
		KeyVersion []keyVersion
	}
}

func listKeyVersions(c *call) (any, error) {
	p, err := c.params.Page(0, 101)
	if err != nil {
		return nil, err
	}
	k, err := c.key("KeyId", idOrAlias)
	if err != nil {
		return nil, err
	}
	list := keyVersionList{Page: p}
	list.KeyVersions.KeyVersion = wire.Cut(&list.Page, k.keyVersions())
	return list, nil
}

func describeKeyVersion(c *call) (any, error) {
	k, err := c.key("KeyId", idOnly)
	if err != nil {
		return nil, err
	}
	for _, v := range k.keyVersions() {
		if v.KeyVersionID == c.params["KeyVersionId"] {
			return struct{ KeyVersion keyVersion }{v}, nil
		}
	}
	return nil, errVersionNotFound
}

// createKeyVersion refuses: keys with imported material have one version, and
// other symmetric keys get theirs by rotation alone.
func createKeyVersion(c *call) (any, error) {
	if _, err := c.key("KeyId", idOnly); err != nil {
		return nil, err
	}
	return nil, wire.ErrUnsupported
}
