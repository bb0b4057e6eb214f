package ram

import (
	"maps"
	"slices"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
)

// Seconds that a role's session may last.
const (
	minSession     = 900
	defaultSession = 3600
	minMaxSession  = 3600
	maxMaxSession  = 43200
)

// roleInfo is Role of the API. Lists leave the document out.
type roleInfo struct {
	RoleID                   string `json:"RoleId"`
	RoleName                 string
	Arn                      string
	Description              string
	AssumeRolePolicyDocument string `json:",omitempty"`
	MaxSessionDuration       int
	CreateDate               string
	UpdateDate               string `json:",omitempty"`
}

func (a *Account) roleInfo(r *role) roleInfo {
	return roleInfo{
		RoleID: r.RoleID, RoleName: r.RoleName, Arn: a.arn("role/" + r.RoleName), Description: r.Description,
		AssumeRolePolicyDocument: r.Trust, MaxSessionDuration: r.MaxSession, CreateDate: timeText(r.CreatedAt), UpdateDate: timeText(r.UpdatedAt),
	}
}

type oneRole struct{ Role roleInfo }

func (c *call) role() (*role, error) {
	r, ok := c.state.Roles[c.params["RoleName"]]
	if !ok {
		return nil, errNoRole
	}
	return r, nil
}

func createRole(c *call) (any, error) {
	name := c.params["RoleName"]
	if err := roleNames.check(name); err != nil {
		return nil, err
	}
	trust, err := c.document("AssumeRolePolicyDocument", policy.Trust)
	if err != nil {
		return nil, err
	}
	description, err := c.text("Description", maxDescription)
	if err != nil {
		return nil, err
	}
	session, err := c.integer("MaxSessionDuration", defaultSession, minMaxSession, maxMaxSession)
	if err != nil {
		return nil, err
	}
	if _, ok := c.state.Roles[name]; ok {
		return nil, errRoleExists
	}
	if len(c.state.Roles) >= maxRoles {
		return nil, errRoleLimit
	}
	r := &role{
		RoleID: newNumber(), RoleName: name, Description: description, Trust: trust, MaxSession: session, CreatedAt: c.now, UpdatedAt: c.now,
	}
	c.state.Roles[name] = r
	return oneRole{c.account.roleInfo(r)}, nil
}

func getRole(c *call) (any, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	return oneRole{c.account.roleInfo(r)}, nil
}

func updateRole(c *call) (any, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	if r.MaxSession, err = c.integer("NewMaxSessionDuration", r.MaxSession, minMaxSession, maxMaxSession); err != nil {
		return nil, err
	}
	if c.params["NewAssumeRolePolicyDocument"] != "" {
		if r.Trust, err = c.document("NewAssumeRolePolicyDocument", policy.Trust); err != nil {
			return nil, err
		}
	}
	r.UpdatedAt = c.now
	return oneRole{c.account.roleInfo(r)}, nil
}

func deleteRole(c *call) (any, error) {
	r, err := c.role()
	switch {
	case err != nil:
		return nil, err
	case len(r.Attached) > 0:
		return nil, errRoleHasPolicies
	}
	delete(c.state.Roles, r.RoleName)
	return nil, nil
}

func listRoles(c *call) (any, error) {
	names, page, err := c.listPage(slices.Collect(maps.Keys(c.state.Roles)))
	if err != nil {
		return nil, err
	}
	answer := struct {
		paging
		Roles struct{ Role []roleInfo }
	}{paging: page}
	answer.Roles.Role = []roleInfo{}
	for _, name := range names {
		info := c.account.roleInfo(c.state.Roles[name])
		info.AssumeRolePolicyDocument = ""
		answer.Roles.Role = append(answer.Roles.Role, info)
	}
	return answer, nil
}
