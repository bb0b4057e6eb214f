package emulator

import (
	"crypto/rand"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const (
	maxDescription = 8192 // characters
	minPendingDays = 7
	maxPendingDays = 366
)

func createKey(c *call) (any, error) {
	k, err := c.newKey()
	if err != nil {
		return nil, err
	}
	if c.server.maxKeys > 0 && len(c.region.allKeys()) >= c.server.maxKeys {
		return nil, errLimitExceeded
	}
	if err := c.region.commit(putKey(k)); err != nil {
		return nil, err
	}
	return wire.KeyDescription{KeyMetadata: c.region.metadata(k)}, nil
}

// newKey makes the key that the parameters ask for.
func (c *call) newKey() (*key, error) {
	origin, err := c.params.OneOf("Origin", originKMS, originExternal)
	if err != nil {
		return nil, err
	}
	if _, err := c.params.OneOf("KeySpec", specAES256); err != nil {
		return nil, err
	}
	if _, err := c.params.OneOf("KeyUsage", usageEncrypt); err != nil {
		return nil, err
	}
	protection, err := c.params.OneOf("ProtectionLevel", "SOFTWARE", "HSM")
	if err != nil {
		return nil, err
	}
	description, err := c.text("Description", maxDescription)
	if err != nil {
		return nil, err
	}
	tags, err := parseTags(c.params["Tags"])
	if err != nil {
		return nil, err
	}
	instance := c.params["DKMSInstanceId"]
	interval, err := c.rotation()
	switch {
	case err != nil:
		return nil, err
	case interval > 0 && origin == originExternal:
		return nil, wire.ErrUnsupported
	case instance != "" && !c.server.hasInstance(c.region.name, instance):
		return nil, errInstanceNotFound
	}
	policy, err := c.keyPolicy()
	if err != nil {
		return nil, err
	}
	k := &key{
		ID: uuid.NewString(), Instance: instance, Origin: origin, ProtectionLevel: protection, Description: description,
		CreatedAt: c.now, State: pendingImport, Tags: tags,
	}
	if err := k.setPolicy(policy); err != nil {
		return nil, err
	}
	if origin == originExternal {
		return k, nil
	}
	k.Version, k.VersionCreatedAt, k.State = uuid.NewString(), k.CreatedAt, enabled
	k.rotateEvery(interval, c.now)
	return k, k.generate()
}

// generate gives the primary version material of its own.
func (k *key) generate() error {
	material := make([]byte, materialSize)
	rand.Read(material) // never fails (crypto/rand since Go 1.24)
	return k.setMaterial(material, time.Time{})
}

func describeKey(c *call) (any, error) {
	k, err := c.key("KeyId", idOrAlias)
	if err != nil {
		return nil, err
	}
	m := c.region.metadata(k)
	m.Protection, m.ProtectionWhy = "Disabled", k.ProtectedWhy
	if k.Protected {
		m.Protection = "Enabled"
	}
	return wire.KeyDescription{KeyMetadata: m}, nil
}

// change finds the key that KeyId names, lets edit work on a copy and commits
// that.
func (c *call) change(edit func(*key) error) (any, error) {
	k, err := c.key("KeyId", idOnly)
	if err != nil {
		return nil, err
	}
	k = k.clone()
	if err := edit(k); err != nil {
		return nil, err
	}
	return nil, c.region.commit(putKey(k))
}

func updateKeyDescription(c *call) (any, error) {
	return c.change(func(k *key) error {
		text, ok := c.params["Description"]
		if !ok {
			return wire.MissingParameter("Description")
		}
		if utf8.RuneCountInString(text) > maxDescription {
			return wire.InvalidParameter("Description")
		}
		k.Description = text
		return nil
	})
}

func enableKey(c *call) (any, error) {
	return c.change(func(k *key) error {
		k.State = enabled
		return nil
	})
}

func disableKey(c *call) (any, error) {
	return c.change(func(k *key) error {
		k.State = disabled
		return nil
	})
}

func scheduleKeyDeletion(c *call) (any, error) {
	days, err := c.params.Integer("PendingWindowInDays", 0, minPendingDays, maxPendingDays)
	if err != nil {
		return nil, err
	}
	return c.change(func(k *key) error {
		if k.Protected {
			return notModified
		}
		k.State, k.DeleteAt = pendingDeletion, c.now.Add(time.Duration(days)*24*time.Hour)
		return nil
	})
}

func cancelKeyDeletion(c *call) (any, error) {
	return c.change(func(k *key) error {
		k.State, k.DeleteAt = enabled, time.Time{}
		if k.Material == nil {
			k.State = pendingImport
		}
		return nil
	})
}

// setDeletionProtection names its key by ProtectedResourceArn; newer metadata
// also knows KeyId.
func setDeletionProtection(c *call) (any, error) {
	on, err := c.params.Boolean("EnableDeletionProtection")
	if err != nil {
		return nil, err
	}
	why, err := c.text("DeletionProtectionDescription", maxDescription)
	if err != nil {
		return nil, err
	}
	param := "ProtectedResourceArn"
	if _, ok := c.params["KeyId"]; ok {
		param = "KeyId"
	} else if arn := c.params[param]; arn != "" && !strings.HasPrefix(arn, "acs:kms:") {
		return nil, wire.InvalidParameter(param)
	}
	k, err := c.key(param, idOnly)
	if err != nil {
		return nil, err
	}
	k = k.clone()
	k.Protected, k.ProtectedWhy = on, why
	return nil, c.region.commit(putKey(k))
}
