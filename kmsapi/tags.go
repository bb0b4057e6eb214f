package kmsapi

import (
	"context"
	"encoding/json"
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
	resp, err := send(ctx, c, (*kms.Client).ListTagResources, r)
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

// TagKey implements KMS.
func (c *Client) TagKey(ctx context.Context, keyID string, tags []Tag) (Ack, error) {
	r := kms.CreateTagResourceRequest()
	r.KeyId = keyID
	var err error
	if r.Tags, err = tagsJSON(tags); err != nil {
		return Ack{}, &Error{Operation: r.GetActionName(), Stage: StageLocal, Cause: err}
	}
	resp, err := send(ctx, c, (*kms.Client).TagResource, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// UntagKey implements KMS.
func (c *Client) UntagKey(ctx context.Context, keyID string, names []string) (Ack, error) {
	r := kms.CreateUntagResourceRequest()
	r.KeyId = keyID
	keys, err := json.Marshal(names)
	if err != nil {
		return Ack{}, &Error{Operation: r.GetActionName(), Stage: StageLocal, Cause: err}
	}
	r.TagKeys = string(keys)
	resp, err := send(ctx, c, (*kms.Client).UntagResource, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// KeyTags implements KMS.
func (c *Client) KeyTags(ctx context.Context, keyID string) ([]Tag, error) {
	r := kms.CreateListResourceTagsRequest()
	r.KeyId = keyID
	resp, err := send(ctx, c, (*kms.Client).ListResourceTags, r)
	if err != nil {
		return nil, err
	}
	f := fieldsOf(r, resp.RequestId)
	var tags []Tag
	for _, t := range resp.Tags.Tag {
		tags = append(tags, Tag{Key: f.required("TagKey", t.TagKey), Value: t.TagValue})
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return tags, nil
}

// tagsJSON renders tags as CreateKey and TagResource take them.
func tagsJSON(tags []Tag) (string, error) {
	text, err := json.Marshal(tags)
	return string(text), err
}
