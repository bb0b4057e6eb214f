package ram

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ram"
)

const (
	typeCustom = "Custom"
	// maxVersions is how many versions RAM keeps of a policy ("Limits").
	maxVersions = 5
)

// policy is a custom policy with its default version.
type policy struct {
	description, version, document string
}

type policyVersion struct {
	id        string
	isDefault bool
	createdAt time.Time
}

// attached is a policy as a user has it.
type attached struct{ kind, name string }

func (c *Client) policy(ctx context.Context, name string) (policy, error) {
	req := ram.CreateGetPolicyRequest()
	req.PolicyType, req.PolicyName = typeCustom, name
	resp := ram.CreateGetPolicyResponse()
	if err := c.rpc.Do(ctx, req, resp); err != nil {
		return policy{}, err
	}
	document := cmp.Or(resp.DefaultPolicyVersion.PolicyDocument, resp.Policy.PolicyDocument)
	if resp.Policy.PolicyName != name || document == "" {
		return policy{}, broken(req.GetActionName(), "the answer is not the policy that was asked for")
	}
	return policy{resp.Policy.Description, cmp.Or(resp.DefaultPolicyVersion.VersionId, resp.Policy.DefaultVersion), document}, nil
}

// createPolicy returns the ID of the first version.
func (c *Client) createPolicy(ctx context.Context, name, description, document string) (string, error) {
	req := ram.CreateCreatePolicyRequest()
	req.PolicyName, req.Description, req.PolicyDocument = name, description, document
	resp := ram.CreateCreatePolicyResponse()
	err := c.rpc.Do(ctx, req, resp)
	return resp.Policy.DefaultVersion, err
}

// policyVersions lists the versions of a policy, the oldest first.
func (c *Client) policyVersions(ctx context.Context, name string) ([]policyVersion, error) {
	req := ram.CreateListPolicyVersionsRequest()
	req.PolicyType, req.PolicyName = typeCustom, name
	resp := ram.CreateListPolicyVersionsResponse()
	if err := c.rpc.Do(ctx, req, resp); err != nil {
		return nil, err
	}
	var versions []policyVersion
	for _, v := range resp.PolicyVersions.PolicyVersion {
		versions = append(versions, policyVersion{v.VersionId, v.IsDefaultVersion, parseTime(v.CreateDate)})
	}
	slices.SortStableFunc(versions, func(a, b policyVersion) int {
		// Of the same second, v9 is older than v10.
		return cmp.Or(a.createdAt.Compare(b.createdAt), cmp.Compare(len(a.id), len(b.id)), cmp.Compare(a.id, b.id))
	})
	return versions, nil
}

// createVersion makes a version the default one and returns its ID.
func (c *Client) createVersion(ctx context.Context, name, document string) (string, error) {
	req := ram.CreateCreatePolicyVersionRequest()
	req.PolicyName, req.PolicyDocument, req.SetAsDefault = name, document, requests.NewBoolean(true)
	resp := ram.CreateCreatePolicyVersionResponse()
	err := c.rpc.Do(ctx, req, resp)
	return resp.PolicyVersion.VersionId, err
}

func (c *Client) deleteVersion(ctx context.Context, name, version string) error {
	req := ram.CreateDeletePolicyVersionRequest()
	req.PolicyName, req.VersionId = name, version
	return c.rpc.Do(ctx, req, ram.CreateDeletePolicyVersionResponse())
}

func (c *Client) deletePolicy(ctx context.Context, name string) error {
	req := ram.CreateDeletePolicyRequest()
	req.PolicyName = name
	return c.rpc.Do(ctx, req, ram.CreateDeletePolicyResponse())
}

func (c *Client) attach(ctx context.Context, name, user string) error {
	req := ram.CreateAttachPolicyToUserRequest()
	req.PolicyType, req.PolicyName, req.UserName = typeCustom, name, user
	return c.rpc.Do(ctx, req, ram.CreateAttachPolicyToUserResponse())
}

func (c *Client) detach(ctx context.Context, name, user string) error {
	req := ram.CreateDetachPolicyFromUserRequest()
	req.PolicyType, req.PolicyName, req.UserName = typeCustom, name, user
	return c.rpc.Do(ctx, req, ram.CreateDetachPolicyFromUserResponse())
}

func (c *Client) policiesOf(ctx context.Context, user string) ([]attached, error) {
	req := ram.CreateListPoliciesForUserRequest()
	req.UserName = user
	resp := ram.CreateListPoliciesForUserResponse()
	if err := c.rpc.Do(ctx, req, resp); err != nil {
		return nil, err
	}
	var all []attached
	for _, p := range resp.Policies.Policy {
		all = append(all, attached{p.PolicyType, p.PolicyName})
	}
	return all, nil
}
