package kmsapi

import (
	"context"
	"slices"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
)

// ListTagResources implements KMS.
func (c *Client) ListTagResources(ctx context.Context, req ListTagResourcesRequest) (*TaggedKeys, error) {
	r := kms.CreateListTagResourcesRequest()
	r.ResourceType = ResourceTypeKey
	r.NextToken = req.NextToken
	var tags []kms.ListTagResourcesTag
	for _, t := range req.Tags {
		tags = append(tags, kms.ListTagResourcesTag{Key: t.Key, Value: t.Value})
	}
	r.Tag = &tags
	resp, err := send(ctx, c, replayable, (*kms.Client).ListTagResources, r)
	if err != nil {
		return nil, err
	}
	f := fieldsOf(r, resp.RequestId)
	found := &TaggedKeys{NextToken: resp.NextToken, RequestID: resp.RequestId}
	// KMS answers with one row for each tag of a key.
	for _, row := range resp.TagResources.TagResource {
		if id := f.required("ResourceId", row.ResourceId); !slices.Contains(found.KeyIDs, id) {
			found.KeyIDs = append(found.KeyIDs, id)
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return found, nil
}
