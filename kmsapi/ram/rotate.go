package ram

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// TwoKeysError says that a user has as many AccessKeys as RAM allows, so that
// none can be made.
type TwoKeysError struct {
	User string
	Keys []AccessKey // the older first
}

func (e *TwoKeysError) Error() string {
	keys := make([]string, len(e.Keys))
	for i, k := range e.Keys {
		keys[i] = k.String()
	}
	return fmt.Sprintf("user %s has %d access keys, as many as RAM allows: %s; `kmsbrokerctl ram rotate --finish --user %s` deletes the older one, and --keep ID chooses",
		e.User, len(e.Keys), strings.Join(keys, " and "), e.User)
}

// String describes the key to a person.
func (k AccessKey) String() string {
	state := "inactive"
	if k.Active {
		state = "active"
	}
	return fmt.Sprintf("%s (%s, made %s, last used %s)", k.ID, state, day(k.CreatedAt, "at an unknown time"), day(k.LastUsed, "never"))
}

func day(t time.Time, zero string) string {
	if t.IsZero() {
		return zero
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// Rotate makes a second AccessKey for a user and delivers it. It returns the old
// one, which stays good until FinishRotation, and the ID of the new one.
func (c *Client) Rotate(ctx context.Context, user string, deliver Deliver) (old AccessKey, made string, err error) {
	if err := c.CheckRevocable(ctx, user); err != nil {
		return AccessKey{}, "", err
	}
	keys, err := c.AccessKeys(ctx, user)
	switch {
	case err != nil:
		return AccessKey{}, "", err
	case len(keys) == 0:
		return AccessKey{}, "", fmt.Errorf("user %s has no access key that could be rotated: `kmsbrokerctl ram provision` makes one", user)
	case len(keys) >= MaxAccessKeys:
		return AccessKey{}, "", &TwoKeysError{User: user, Keys: keys}
	}
	made, err = c.issue(ctx, user, deliver)
	return keys[0], made, err
}

// Rotation is what FinishRotation is going to do.
type Rotation struct {
	Keep, Remove AccessKey
}

// Switched reports that RAM has seen the key that stays in use later than the one
// that goes. RAM learns of a use with some delay.
func (r Rotation) Switched() bool { return r.Keep.LastUsed.After(r.Remove.LastUsed) }

// PlanFinish finds out which AccessKey is the old one: the one made earlier, or
// the one that is not keep. due is false when there are no two.
func (c *Client) PlanFinish(ctx context.Context, user, keep string) (r Rotation, due bool, err error) {
	if err := c.CheckRevocable(ctx, user); err != nil {
		return Rotation{}, false, err
	}
	keys, err := c.AccessKeys(ctx, user)
	if err != nil {
		return Rotation{}, false, err
	}
	kept := len(keys) - 1
	if keep != "" {
		if kept = slices.IndexFunc(keys, func(k AccessKey) bool { return k.ID == keep }); kept < 0 {
			return Rotation{}, false, fmt.Errorf("user %s has no access key %s", user, keep)
		}
	}
	if len(keys) != MaxAccessKeys {
		return Rotation{}, false, nil
	}
	r = Rotation{Keep: keys[kept], Remove: keys[1-kept]}
	switch {
	case keep == "" && r.Keep.CreatedAt.Equal(r.Remove.CreatedAt):
		return Rotation{}, false, fmt.Errorf("access keys %v and %v are of the same second: say with --keep which stays", r.Remove, r.Keep)
	case !r.Keep.Active:
		return Rotation{}, false, fmt.Errorf("access key %v is inactive, without the other one nothing would work: say with --keep which stays", r.Keep)
	}
	return r, true, nil
}

// FinishRotation deactivates and deletes the old AccessKey.
func (c *Client) FinishRotation(ctx context.Context, user string, r Rotation) error {
	return c.removeKeys(ctx, user, []AccessKey{r.Remove})
}

// removeKeys deactivates all keys before it deletes any, so that a failure halfway
// leaves none that works.
func (c *Client) removeKeys(ctx context.Context, user string, keys []AccessKey) error {
	for _, k := range keys {
		if err := unless(codeNoAccessKey, c.deactivateKey(ctx, user, k.ID)); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if err := unless(codeNoAccessKey, c.deleteKey(ctx, user, k.ID)); err != nil {
			return err
		}
	}
	return nil
}
