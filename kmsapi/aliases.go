package kmsapi

import (
	"context"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
)

// CreateAlias implements KMS.
func (c *Client) CreateAlias(ctx context.Context, keyID, alias string) (Ack, error) {
	r := kms.CreateCreateAliasRequest()
	r.KeyId, r.AliasName = keyID, alias
	resp, err := send(ctx, c, once, (*kms.Client).CreateAlias, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// UpdateAlias implements KMS.
func (c *Client) UpdateAlias(ctx context.Context, keyID, alias string) (Ack, error) {
	r := kms.CreateUpdateAliasRequest()
	r.KeyId, r.AliasName = keyID, alias
	resp, err := send(ctx, c, once, (*kms.Client).UpdateAlias, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// DeleteAlias implements KMS.
func (c *Client) DeleteAlias(ctx context.Context, alias string) (Ack, error) {
	r := kms.CreateDeleteAliasRequest()
	r.AliasName = alias
	resp, err := send(ctx, c, once, (*kms.Client).DeleteAlias, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// ListAliases implements KMS.
func (c *Client) ListAliases(ctx context.Context, page Page) (*AliasList, error) {
	r := kms.CreateListAliasesRequest()
	r.PageNumber, r.PageSize = optional(page.Number), optional(page.Size)
	resp, err := send(ctx, c, replayable, (*kms.Client).ListAliases, r)
	if err != nil {
		return nil, err
	}
	f := fieldsOf(r, resp.RequestId)
	list := &AliasList{
		Page:      f.page(resp.PageNumber, resp.PageSize, resp.TotalCount, len(resp.Aliases.Alias)),
		Total:     resp.TotalCount,
		RequestID: resp.RequestId,
	}
	for _, a := range resp.Aliases.Alias {
		list.Aliases = append(list.Aliases, Alias{
			Name:  f.required("AliasName", a.AliasName),
			KeyID: f.required("KeyId", a.KeyId),
			ARN:   f.required("AliasArn", a.AliasArn),
		})
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return list, nil
}
