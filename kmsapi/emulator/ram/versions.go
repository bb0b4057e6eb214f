package ram

import (
	"slices"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// rotateOldest is the RotateStrategy that makes room for a new version.
const rotateOldest = "DeleteOldestNonDefaultVersionWhenLimitExceeded"

func createPolicyVersion(c *call) (any, error) {
	p, err := c.custom()
	if err != nil {
		return nil, err
	}
	document, err := c.document("PolicyDocument", policy.Identity)
	if err != nil {
		return nil, err
	}
	asDefault, err := c.flag("SetAsDefault")
	if err != nil {
		return nil, err
	}
	rotate := c.params["RotateStrategy"]
	if rotate != "" && rotate != "None" && rotate != rotateOldest {
		return nil, wire.InvalidParameter("RotateStrategy")
	}
	if len(p.Versions) >= maxVersions {
		if rotate != rotateOldest {
			return nil, errVersionLimit
		}
		oldest := slices.IndexFunc(p.Versions, func(v policyVersion) bool { return v.ID != p.Default })
		p.Versions = slices.Delete(p.Versions, oldest, oldest+1)
	}
	v := p.add(document, c)
	if asDefault {
		p.Default = v.ID
	}
	return struct{ PolicyVersion versionInfo }{p.versionInfo(v)}, nil
}

func getPolicyVersion(c *call) (any, error) {
	p, _, err := c.policy()
	if err != nil {
		return nil, err
	}
	v, ok := p.version(c.params["VersionId"])
	if !ok {
		return nil, errNoPolicyVersion
	}
	return struct{ PolicyVersion versionInfo }{p.versionInfo(v)}, nil
}

// listPolicyVersions lists without the documents.
func listPolicyVersions(c *call) (any, error) {
	p, _, err := c.policy()
	if err != nil {
		return nil, err
	}
	var answer struct {
		PolicyVersions struct{ PolicyVersion []versionInfo }
	}
	for _, v := range p.Versions {
		info := p.versionInfo(v)
		info.PolicyDocument = ""
		answer.PolicyVersions.PolicyVersion = append(answer.PolicyVersions.PolicyVersion, info)
	}
	return answer, nil
}

func setDefaultPolicyVersion(c *call) (any, error) {
	p, err := c.custom()
	if err != nil {
		return nil, err
	}
	v, ok := p.version(c.params["VersionId"])
	if !ok {
		return nil, errNoPolicyVersion
	}
	p.Default, p.UpdatedAt = v.ID, c.now
	return nil, nil
}

func deletePolicyVersion(c *call) (any, error) {
	p, err := c.custom()
	if err != nil {
		return nil, err
	}
	id := c.params["VersionId"]
	switch _, ok := p.version(id); {
	case !ok:
		return nil, errNoPolicyVersion
	case id == p.Default:
		return nil, errVersionIsDefault
	}
	p.Versions = slices.DeleteFunc(p.Versions, func(v policyVersion) bool { return v.ID == id })
	p.UpdatedAt = c.now
	return nil, nil
}
