package ram

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// mark is what a user and a policy carry that were made here, and whoever lacks
// it is left alone.
const mark = "made by kmsbrokerctl ram provision"

var userName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// CheckUser reports a name that is not taken here. RAM allows dots and
// underscores too, but not in the names of policies, which are made of it.
func CheckUser(name string) error {
	if !userName.MatchString(name) {
		return fmt.Errorf("user name %.100q is not 1 to 64 of A-Z a-z 0-9 -", name)
	}
	return nil
}

// PolicyName is the policy of a user.
func PolicyName(user string) string { return "kmsbroker-" + user }

// Deliver stores a new AccessKey where the broker will find it. When it fails the
// AccessKey is deleted again.
type Deliver func(context.Context, kmsapi.Credentials) error

// Provisioned says what is there after Provision, and what of it is new.
type Provisioned struct {
	User          string   `json:"user"`
	Policy        string   `json:"policy"`
	PolicyVersion string   `json:"policy_version"`
	AccessKeyID   string   `json:"access_key_id"`
	Changes       []string `json:"changes"` // sentences; empty when all was there
	// OtherPolicies are attached to the user too, and allow more than the
	// grant.
	OtherPolicies []string `json:"other_policies"`
}

// Provision makes a user who may do what a policy document allows, with one
// AccessKey. What is there already is kept if it is right and corrected if not,
// so an interrupted Provision is repeated. present is the ID of the AccessKey that
// was delivered by an earlier run, empty for none.
func (c *Client) Provision(ctx context.Context, user, document, present string, deliver Deliver) (Provisioned, error) {
	p := Provisioned{User: user, Policy: PolicyName(user), AccessKeyID: present, Changes: []string{}, OtherPolicies: []string{}}
	if err := CheckUser(user); err != nil {
		return p, err
	}
	if err := c.provideUser(ctx, &p); err != nil {
		return p, err
	}
	keys, err := c.listKeys(ctx, user)
	if err != nil {
		return p, err
	}
	// Before anything is changed for a user whose key is somewhere else.
	if err := checkPresent(user, present, keys); err != nil {
		return p, err
	}
	if err := c.providePolicy(ctx, &p, document); err != nil {
		return p, err
	}
	if err := c.provideAttachment(ctx, &p); err != nil {
		return p, err
	}
	if present != "" {
		return p, nil
	}
	p.AccessKeyID, err = c.issue(ctx, user, deliver)
	if err == nil {
		p.changed("access key %s made", p.AccessKeyID)
	}
	return p, err
}

func (p *Provisioned) changed(format string, args ...any) {
	p.Changes = append(p.Changes, fmt.Sprintf(format, args...))
}

func (c *Client) provideUser(ctx context.Context, p *Provisioned) error {
	comments, err := c.comments(ctx, p.User)
	switch {
	case refused(err, codeNoUser):
		if err := c.createUser(ctx, p.User, mark); err != nil {
			return err
		}
		p.changed("user %s made", p.User)
		return nil
	case err != nil:
		return err
	}
	return checkMark("user", p.User, comments)
}

func checkMark(kind, name, text string) error {
	if text != mark {
		return fmt.Errorf("%s %s was not %s and is left alone: choose another user name", kind, name, mark)
	}
	return nil
}

// checkPresent compares the AccessKeys that a user has with the one that is
// known.
func checkPresent(user, present string, keys []AccessKey) error {
	if present == "" && len(keys) > 0 {
		return fmt.Errorf("user %s has access key %s already, whose secret nobody can ask for: "+
			"name the file that has it with --out, or replace it with `kmsbrokerctl ram rotate`", user, keys[0].ID)
	}
	if present == "" {
		return nil
	}
	i := slices.IndexFunc(keys, func(k AccessKey) bool { return k.ID == present })
	switch {
	case i < 0:
		return fmt.Errorf("the file has access key %s, which user %s does not have: remove the file, or name another with --out", present, user)
	case !keys[i].Active:
		return fmt.Errorf("access key %s of the file is inactive: `kmsbrokerctl ram rotate` replaces it", present)
	}
	return nil
}

func (c *Client) providePolicy(ctx context.Context, p *Provisioned, document string) error {
	there, err := c.policy(ctx, p.Policy)
	if refused(err, codeNoPolicy) {
		if p.PolicyVersion, err = c.createPolicy(ctx, p.Policy, mark, document); err == nil {
			p.changed("policy %s made", p.Policy)
		}
		return err
	}
	if err != nil {
		return err
	}
	if err := checkMark("policy", p.Policy, there.description); err != nil {
		return err
	}
	p.PolicyVersion = there.version
	if sameJSON(there.document, document) {
		return nil
	}
	versions, err := c.policyVersions(ctx, p.Policy)
	if err != nil {
		return err
	}
	if len(versions) >= maxVersions {
		oldest := slices.IndexFunc(versions, func(v policyVersion) bool { return !v.isDefault })
		if err := c.deleteVersion(ctx, p.Policy, versions[oldest].id); err != nil {
			return err
		}
		p.changed("version %s of policy %s deleted to make room", versions[oldest].id, p.Policy)
	}
	if p.PolicyVersion, err = c.createVersion(ctx, p.Policy, document); err != nil {
		return err
	}
	p.changed("policy %s changed, now version %s", p.Policy, p.PolicyVersion)
	return nil
}

// sameJSON compares documents by what they mean: the service may lay them out
// anew.
func sameJSON(a, b string) bool {
	var left, right any
	return json.Unmarshal([]byte(a), &left) == nil && json.Unmarshal([]byte(b), &right) == nil && reflect.DeepEqual(left, right)
}

func (c *Client) provideAttachment(ctx context.Context, p *Provisioned) error {
	all, err := c.policiesOf(ctx, p.User)
	if err != nil {
		return err
	}
	has := false
	for _, a := range all {
		if a == (attached{typeCustom, p.Policy}) {
			has = true
			continue
		}
		p.OtherPolicies = append(p.OtherPolicies, a.kind+"/"+a.name)
	}
	if has {
		return nil
	}
	if err := c.attach(ctx, p.Policy, p.User); err != nil {
		return err
	}
	p.changed("policy %s attached to user %s", p.Policy, p.User)
	return nil
}

// cleanupTimeout bounds what must be done even when the caller has given up.
const cleanupTimeout = 20 * time.Second

// issue makes an AccessKey and delivers it, or leaves none.
func (c *Client) issue(ctx context.Context, user string, deliver Deliver) (string, error) {
	before, err := c.listKeys(ctx, user)
	if err != nil {
		return "", err
	}
	made, err := c.createKey(ctx, user)
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err != nil {
		return "", c.lostKey(cleanup, user, before, err)
	}
	if err := deliver(ctx, made); err != nil {
		if undo := c.deleteKey(cleanup, user, made.AccessKeyID); undo != nil {
			return "", errors.Join(err, fmt.Errorf("access key %s of user %s is lost and could not be deleted again, delete it: %w", made.AccessKeyID, user, undo))
		}
		return "", fmt.Errorf("access key %s was deleted again: %w", made.AccessKeyID, err)
	}
	return made.AccessKeyID, nil
}

// lostKey says which AccessKey a failed attempt may have made. It deletes none:
// another administrator could have made it meanwhile.
func (c *Client) lostKey(ctx context.Context, user string, before []AccessKey, err error) error {
	if e, ok := errors.AsType[*kmsapi.Error](err); !ok || !e.OutcomeUnknown() {
		return err
	}
	after, listErr := c.listKeys(ctx, user)
	if listErr != nil {
		return fmt.Errorf("%w; an access key may have been made all the same, and RAM does not answer when asked: look at user %s before you try again", err, user)
	}
	var lost []string
	for _, k := range after {
		if !slices.ContainsFunc(before, func(b AccessKey) bool { return b.ID == k.ID }) {
			lost = append(lost, k.ID)
		}
	}
	if len(lost) == 0 {
		return fmt.Errorf("%w; no access key was made", err)
	}
	return fmt.Errorf("%w; access key %s appeared meanwhile and its secret is lost: `kmsbrokerctl ram rotate` replaces it", err, strings.Join(lost, ", "))
}
