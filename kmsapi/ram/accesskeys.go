package ram

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/ram"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// AccessKey describes an AccessKey without its secret, which RAM tells once, to
// whoever makes it.
type AccessKey struct {
	ID        string
	Active    bool
	CreatedAt time.Time // whole seconds
	LastUsed  time.Time // zero: never, as far as RAM knows yet
}

const (
	statusActive   = "Active"
	statusInactive = "Inactive"
)

// AccessKeys lists the AccessKeys of a user, the oldest first.
func (c *Client) AccessKeys(ctx context.Context, user string) ([]AccessKey, error) {
	keys, err := c.listKeys(ctx, user)
	if err != nil {
		return nil, err
	}
	for i := range keys {
		if keys[i].LastUsed, err = c.lastUsed(ctx, user, keys[i].ID); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func (c *Client) listKeys(ctx context.Context, user string) ([]AccessKey, error) {
	req := ram.CreateListAccessKeysRequest()
	req.UserName = user
	resp := ram.CreateListAccessKeysResponse()
	if err := c.rpc.Do(ctx, req, resp); err != nil {
		return nil, err
	}
	var keys []AccessKey
	for _, k := range resp.AccessKeys.AccessKey {
		if k.AccessKeyId == "" {
			return nil, broken(req.GetActionName(), "an AccessKey in the answer has no ID")
		}
		keys = append(keys, AccessKey{ID: k.AccessKeyId, Active: k.Status == statusActive, CreatedAt: parseTime(k.CreateDate)})
	}
	slices.SortStableFunc(keys, func(a, b AccessKey) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return keys, nil
}

func (c *Client) lastUsed(ctx context.Context, user, id string) (time.Time, error) {
	req := ram.CreateGetAccessKeyLastUsedRequest()
	req.UserName, req.UserAccessKeyId = user, id
	resp := ram.CreateGetAccessKeyLastUsedResponse()
	if err := c.rpc.Do(ctx, req, resp); err != nil {
		return time.Time{}, err
	}
	return parseTime(resp.AccessKeyLastUsed.LastUsedDate), nil
}

// createKey is never repeated: each success is another AccessKey, with a secret
// that nobody can ask for again.
func (c *Client) createKey(ctx context.Context, user string) (kmsapi.Credentials, error) {
	req := ram.CreateCreateAccessKeyRequest()
	req.UserName = user
	resp := ram.CreateCreateAccessKeyResponse()
	if err := c.rpc.Do(ctx, req, resp); err != nil {
		return kmsapi.Credentials{}, err
	}
	made := kmsapi.Credentials{AccessKeyID: resp.AccessKey.AccessKeyId, AccessKeySecret: resp.AccessKey.AccessKeySecret}
	if made.AccessKeyID == "" || made.AccessKeySecret == "" {
		return kmsapi.Credentials{}, broken(req.GetActionName(), "the answer lacks the AccessKey's ID or secret")
	}
	return made, nil
}

func (c *Client) deactivateKey(ctx context.Context, user, id string) error {
	req := ram.CreateUpdateAccessKeyRequest()
	req.UserName, req.UserAccessKeyId, req.Status = user, id, statusInactive
	return c.rpc.Do(ctx, req, ram.CreateUpdateAccessKeyResponse())
}

func (c *Client) deleteKey(ctx context.Context, user, id string) error {
	req := ram.CreateDeleteAccessKeyRequest()
	req.UserName, req.UserAccessKeyId = user, id
	return c.rpc.Do(ctx, req, ram.CreateDeleteAccessKeyResponse())
}
