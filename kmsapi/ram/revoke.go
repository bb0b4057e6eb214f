package ram

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Revoked says what Revoke removed.
type Revoked struct {
	User       string   `json:"user"`
	AccessKeys []string `json:"access_keys"`
	Policy     string   `json:"policy"` // empty when it was gone already
}

// CheckRevocable reports a user that is not there or was not made by Provision.
func (c *Client) CheckRevocable(ctx context.Context, user string) error {
	comments, err := c.comments(ctx, user)
	if err != nil {
		return err
	}
	return checkMark("user", user, comments)
}

// Revoke removes what Provision made: the AccessKeys first, of which none works
// any more after a moment, then the policy and the user. One that was interrupted
// is repeated.
func (c *Client) Revoke(ctx context.Context, user string) (Revoked, error) {
	r := Revoked{User: user, AccessKeys: []string{}}
	if err := c.CheckRevocable(ctx, user); err != nil {
		return r, err
	}
	keys, err := c.listKeys(ctx, user)
	if err != nil {
		return r, err
	}
	if err := c.removeKeys(ctx, user, keys); err != nil {
		return r, err
	}
	for _, k := range keys {
		r.AccessKeys = append(r.AccessKeys, k.ID)
	}
	if err := c.revokePolicy(ctx, &r); err != nil {
		return r, err
	}
	if err := c.deleteUser(ctx, user); err != nil {
		return r, fmt.Errorf("the access keys are deleted and the policy is detached, but the user stays: %w", err)
	}
	return r, nil
}

func (c *Client) revokePolicy(ctx context.Context, r *Revoked) error {
	name := PolicyName(r.User)
	if err := unless(codeNoUserPolicy, unless(codeNoPolicy, c.detach(ctx, name, r.User))); err != nil {
		return err
	}
	there, err := c.policy(ctx, name)
	if err != nil {
		return unless(codeNoPolicy, err)
	}
	if there.description != mark {
		return nil
	}
	versions, err := c.policyVersions(ctx, name)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.isDefault {
			continue
		}
		if err := c.deleteVersion(ctx, name, v.id); err != nil {
			return err
		}
	}
	err = c.deletePolicy(ctx, name)
	if e, ok := errors.AsType[*kmsapi.Error](err); ok && strings.HasPrefix(e.Code, codePolicyHeld) {
		return fmt.Errorf("policy %s is attached to others too, detach it and run this again: %w", name, err)
	}
	if err == nil {
		r.Policy = name
	}
	return err
}
