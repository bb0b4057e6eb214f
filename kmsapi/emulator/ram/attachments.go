package ram

import (
	"slices"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// holder is a user or a role, as policies see them.
type holder struct {
	attached             *[]attachment
	exists, absent, full *wire.Error
}

func (c *call) userHolder() (holder, error) {
	u, err := c.user()
	if err != nil {
		return holder{}, err
	}
	return holder{&u.Attached, errUserPolicyExists, errNoUserPolicy, errUserPolicyLimit}, nil
}

func (c *call) roleHolder() (holder, error) {
	r, err := c.role()
	if err != nil {
		return holder{}, err
	}
	return holder{&r.Attached, errRolePolicyExists, errNoRolePolicy, errRolePolicyLimit}, nil
}

func attachPolicyToUser(c *call) (any, error)   { return c.attach((*call).userHolder) }
func attachPolicyToRole(c *call) (any, error)   { return c.attach((*call).roleHolder) }
func detachPolicyFromUser(c *call) (any, error) { return c.detach((*call).userHolder) }
func detachPolicyFromRole(c *call) (any, error) { return c.detach((*call).roleHolder) }
func listPoliciesForUser(c *call) (any, error)  { return c.listAttached((*call).userHolder) }
func listPoliciesForRole(c *call) (any, error)  { return c.listAttached((*call).roleHolder) }

func (c *call) attach(find func(*call) (holder, error)) (any, error) {
	h, err := find(c)
	if err != nil {
		return nil, err
	}
	p, kind, err := c.policy()
	if err != nil {
		return nil, err
	}
	ofKind := 0
	for _, at := range *h.attached {
		if at.Type == kind && at.Name == p.Name {
			return nil, h.exists
		}
		if at.Type == kind {
			ofKind++
		}
	}
	if ofKind >= map[string]int{typeCustom: maxCustomAttached, typeSystem: maxSystemAttached}[kind] {
		return nil, h.full
	}
	*h.attached = append(*h.attached, attachment{Type: kind, Name: p.Name, At: c.now})
	return nil, nil
}

func (c *call) detach(find func(*call) (holder, error)) (any, error) {
	h, err := find(c)
	if err != nil {
		return nil, err
	}
	kind, name := c.params["PolicyType"], c.params["PolicyName"]
	if kind != typeSystem && kind != typeCustom {
		return nil, errPolicyType
	}
	i := slices.IndexFunc(*h.attached, func(at attachment) bool { return at.Type == kind && at.Name == name })
	if i < 0 {
		return nil, h.absent
	}
	*h.attached = slices.Delete(*h.attached, i, i+1)
	return nil, nil
}

func (c *call) listAttached(find func(*call) (holder, error)) (any, error) {
	h, err := find(c)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Policies struct{ Policy []policyInfo }
	}
	answer.Policies.Policy = []policyInfo{}
	for _, at := range *h.attached {
		info := c.state.policyInfo(at.Type, at.Name)
		info.CreateDate, info.AttachDate = "", timeText(at.At)
		answer.Policies.Policy = append(answer.Policies.Policy, info)
	}
	return answer, nil
}

// holders counts the users and roles that have a policy.
func (s *state) holders(kind, name string) (users, roles int) {
	has := func(list []attachment) bool {
		return slices.ContainsFunc(list, func(at attachment) bool { return at.Type == kind && at.Name == name })
	}
	for _, u := range s.Users {
		if has(u.Attached) {
			users++
		}
	}
	for _, r := range s.Roles {
		if has(r.Attached) {
			roles++
		}
	}
	return users, roles
}

// detachEverywhere takes a custom policy from all who have it.
func (s *state) detachEverywhere(name string) {
	gone := func(at attachment) bool { return at.Type == typeCustom && at.Name == name }
	for _, u := range s.Users {
		u.Attached = slices.DeleteFunc(u.Attached, gone)
	}
	for _, r := range s.Roles {
		r.Attached = slices.DeleteFunc(r.Attached, gone)
	}
}
