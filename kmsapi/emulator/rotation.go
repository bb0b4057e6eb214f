package emulator

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// Limits of RotationInterval.
const (
	minRotation = 7 * 24 * time.Hour
	maxRotation = 365 * 24 * time.Hour
)

// rotationUnits are the letters that end a RotationInterval.
var rotationUnits = map[byte]time.Duration{'d': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second}

// rotationInterval reads RotationInterval, "365d".
func (c *call) rotationInterval() (time.Duration, error) {
	const name = "RotationInterval"
	text := c.params[name]
	if text == "" {
		return 0, wire.MissingParameter(name)
	}
	unit, ok := rotationUnits[text[len(text)-1]]
	n, err := strconv.ParseInt(text[:len(text)-1], 10, 32)
	if !ok || err != nil || n < int64(minRotation/unit) || n > int64(maxRotation/unit) {
		return 0, wire.InvalidParameter(name)
	}
	return time.Duration(n) * unit, nil
}

// rotation reads whether a key is to rotate, and how often; 0 is never.
func (c *call) rotation() (time.Duration, error) {
	on, err := c.params.Boolean("EnableAutomaticRotation")
	if err != nil || !on {
		return 0, err
	}
	return c.rotationInterval()
}

func updateRotationPolicy(c *call) (any, error) {
	k, err := c.key("KeyId", idOnly)
	switch {
	case err != nil:
		return nil, err
	case k.Origin == originExternal:
		return nil, wire.ErrUnsupported
	}
	interval, err := c.rotation()
	if err != nil {
		return nil, err
	}
	k = k.clone()
	k.rotateEvery(interval, c.now)
	return nil, c.region.commit(putKey(k))
}

func (k *key) rotateEvery(interval time.Duration, now time.Time) {
	k.RotationInterval, k.RotateAt = interval, time.Time{}
	if interval > 0 {
		k.RotateAt = now.Add(interval)
	}
}

// rotationDue is when the key rotates next. It does so only while it is enabled.
func (k *key) rotationDue() time.Time {
	if k.State != enabled {
		return time.Time{}
	}
	return k.RotateAt
}

// rotate makes a new primary version, once however many rotations were missed.
func (k *key) rotate(now time.Time) error {
	k.Older = append(slices.Clip(k.Older), olderVersion{k.Version, k.VersionCreatedAt, k.Material, k.aead})
	k.Version, k.VersionCreatedAt, k.RotatedAt = uuid.NewString(), k.RotateAt, k.RotateAt
	for !now.Before(k.RotateAt) {
		k.RotateAt = k.RotateAt.Add(k.RotationInterval)
	}
	return k.generate()
}

// rotationMetadata is what KeyMetadata says of rotation.
func (k *key) rotationMetadata(m *wire.KeyMetadata) {
	m.AutomaticRotation, m.LastRotationDate = "Disabled", wire.Time(k.CreatedAt)
	if !k.RotatedAt.IsZero() {
		m.LastRotationDate = wire.Time(k.RotatedAt)
	}
	if k.RotationInterval == 0 {
		return
	}
	m.AutomaticRotation = "Enabled"
	if k.State != enabled {
		m.AutomaticRotation = "Suspended"
	}
	m.RotationInterval = fmt.Sprintf("%ds", int(k.RotationInterval.Seconds()))
	m.NextRotationDate = wire.Time(k.RotateAt)
}
