package emulator

// keyVersion is a version of a key. A key has one at most: versions come from
// rotation, which is not emulated.
type keyVersion struct {
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	CreationDate string
}

func (k *key) keyVersions() []keyVersion {
	if k.Version == "" {
		return nil
	}
	return []keyVersion{{k.ID, k.Version, timeText(k.VersionCreatedAt)}}
}

type keyVersionList struct {
	page
	KeyVersions struct {
		KeyVersion []keyVersion
	}
}

func listKeyVersions(c *call) (any, error) {
	p, err := c.page(0, 101)
	if err != nil {
		return nil, err
	}
	k, err := c.key("KeyId", idOrAlias)
	if err != nil {
		return nil, err
	}
	list := keyVersionList{page: p}
	list.KeyVersions.KeyVersion = cut(&list.page, k.keyVersions())
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

// createKeyVersion refuses: keys with imported material cannot rotate, and those
// of KMS do not here.
func createKeyVersion(c *call) (any, error) {
	if _, err := c.key("KeyId", idOnly); err != nil {
		return nil, err
	}
	return nil, errUnsupported
}

// updateRotationPolicy refuses as createKeyVersion does.
func updateRotationPolicy(c *call) (any, error) { return createKeyVersion(c) }
