package ram

import (
	"maps"
	"slices"
	"strconv"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
)

const (
	typeSystem = "System"
	typeCustom = "Custom"
)

// systemPolicies are some of those that every account has.
var systemPolicies = map[string]struct{ description, document string }{
	"AdministratorAccess":        {"Everything", allowEverything("*")},
	"AliyunKMSFullAccess":        {"Everything in KMS", allowEverything("kms:*")},
	"AliyunKMSReadOnlyAccess":    {"Reading in KMS", allowEverything(`kms:List*","kms:Describe*`)},
	"AliyunRAMFullAccess":        {"Everything in RAM", allowEverything("ram:*")},
	"AliyunSTSAssumeRoleAccess":  {"Assuming roles", allowEverything("sts:AssumeRole")},
	"AliyunKMSCryptoUserAccess":  {"Using keys", allowEverything(`kms:Encrypt","kms:Decrypt","kms:GenerateDataKey","kms:GenerateDataKeyWithoutPlaintext","kms:ReEncrypt*`)},
	"AliyunKMSCryptoAdminAccess": {"Administering keys", allowEverything(`kms:*Key*","kms:*Alias*","kms:List*","kms:Describe*","kms:*Tag*`)},
}

func allowEverything(actions string) string {
	return `{"Version":"1","Statement":[{"Effect":"Allow","Action":["` + actions + `"],"Resource":"*"}]}`
}

// policyInfo is Policy of the API.
type policyInfo struct {
	PolicyName      string
	PolicyType      string
	Description     string
	DefaultVersion  string
	CreateDate      string
	UpdateDate      string `json:",omitempty"`
	AttachmentCount *int   `json:",omitempty"`
	AttachDate      string `json:",omitempty"`
}

type versionInfo struct {
	VersionID        string `json:"VersionId"`
	IsDefaultVersion bool
	PolicyDocument   string `json:",omitempty"`
	CreateDate       string
}

func (p *managedPolicy) info() policyInfo {
	return policyInfo{
		PolicyName: p.Name, PolicyType: typeCustom, Description: p.Description, DefaultVersion: p.Default, CreateDate: timeText(p.CreatedAt),
	}
}

func (p *managedPolicy) versionInfo(v policyVersion) versionInfo {
	return versionInfo{VersionID: v.ID, IsDefaultVersion: v.ID == p.Default, PolicyDocument: v.Document, CreateDate: timeText(v.CreatedAt)}
}

// policy finds the policy that PolicyType and PolicyName name; without a type, a
// custom one. A system policy comes as a copy.
func (c *call) policy() (*managedPolicy, string, error) {
	name, kind := c.params["PolicyName"], c.params["PolicyType"]
	switch kind {
	case "", typeCustom:
		if p, ok := c.state.Policies[name]; ok {
			return p, typeCustom, nil
		}
	case typeSystem:
		if p, ok := systemPolicies[name]; ok {
			return &managedPolicy{
				Name: name, Description: p.description, Default: "v1", Versions: []policyVersion{{ID: "v1", Document: p.document}},
			}, typeSystem, nil
		}
	default:
		return nil, "", errPolicyType
	}
	return nil, "", errNoPolicy
}

// custom is policy for the operations that system policies do not take part in.
func (c *call) custom() (*managedPolicy, error) {
	p, ok := c.state.Policies[c.params["PolicyName"]]
	if !ok {
		return nil, errNoPolicy
	}
	return p, nil
}

func createPolicy(c *call) (any, error) {
	name := c.params["PolicyName"]
	if err := policyNames.check(name); err != nil {
		return nil, err
	}
	document, err := c.document("PolicyDocument", policy.Identity)
	if err != nil {
		return nil, err
	}
	description, err := c.text("Description", maxDescription)
	if err != nil {
		return nil, err
	}
	if _, ok := c.state.Policies[name]; ok {
		return nil, errPolicyExists
	}
	if len(c.state.Policies) >= maxPolicies {
		return nil, errPolicyLimit
	}
	p := &managedPolicy{Name: name, Description: description, CreatedAt: c.now}
	p.Default = p.add(document, c).ID
	c.state.Policies[name] = p
	return struct{ Policy policyInfo }{p.info()}, nil
}

// add makes a new version.
func (p *managedPolicy) add(document string, c *call) policyVersion {
	p.Issued++
	v := policyVersion{ID: "v" + strconv.Itoa(p.Issued), Document: document, CreatedAt: c.now}
	p.Versions, p.UpdatedAt = append(p.Versions, v), c.now
	return v
}

func getPolicy(c *call) (any, error) {
	p, kind, err := c.policy()
	if err != nil {
		return nil, err
	}
	v, _ := p.version(p.Default)
	answer := struct {
		Policy               policyInfo
		DefaultPolicyVersion versionInfo
	}{p.info(), p.versionInfo(v)}
	users, roles := c.state.holders(kind, p.Name)
	count := users + roles
	answer.Policy.PolicyType, answer.Policy.AttachmentCount, answer.Policy.UpdateDate = kind, &count, timeText(p.UpdatedAt)
	return answer, nil
}

func listPolicies(c *call) (any, error) {
	kind := c.params["PolicyType"]
	var names []string
	switch kind {
	case typeSystem:
		names = slices.Collect(maps.Keys(systemPolicies))
	case typeCustom, "":
		names = slices.Collect(maps.Keys(c.state.Policies))
	default:
		return nil, errPolicyType
	}
	names, page, err := c.listPage(names)
	if err != nil {
		return nil, err
	}
	answer := struct {
		paging
		Policies struct{ Policy []policyInfo }
	}{paging: page}
	answer.Policies.Policy = []policyInfo{}
	for _, name := range names {
		info := c.state.policyInfo(kind, name)
		answer.Policies.Policy = append(answer.Policies.Policy, info)
	}
	return answer, nil
}

// policyInfo describes a policy that exists.
func (s *state) policyInfo(kind, name string) policyInfo {
	if kind == typeSystem {
		return policyInfo{PolicyName: name, PolicyType: typeSystem, Description: systemPolicies[name].description, DefaultVersion: "v1"}
	}
	return s.Policies[name].info()
}

func deletePolicy(c *call) (any, error) {
	p, err := c.custom()
	if err != nil {
		return nil, err
	}
	cascade, err := c.flag("CascadingDelete")
	if err != nil {
		return nil, err
	}
	users, roles := c.state.holders(typeCustom, p.Name)
	switch {
	case cascade:
		c.state.detachEverywhere(p.Name)
	case users > 0:
		return nil, errPolicyHasUsers
	case roles > 0:
		return nil, errPolicyHasRoles
	case len(p.Versions) > 1:
		return nil, errPolicyHasVersions
	}
	delete(c.state.Policies, p.Name)
	return nil, nil
}
