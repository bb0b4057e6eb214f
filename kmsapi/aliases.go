package kmsapi

import (
	"context"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
)

// CreateAlias implements KMS.
func (c *Client) CreateAlias(ctx context.Context, keyID, alias string) (Ack, error) {
	r := kms.CreateCreateAliasRequest()
	r.KeyId, r.AliasName = keyID, alias
	resp, err := send(ctx, c, (*kms.Client).CreateAlias, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// UpdateAlias implements KMS.
func (c *Client) UpdateAlias(ctx context.Context, keyID, alias string) (Ack, error) {
	r := kms.CreateUpdateAliasRequest()
	r.KeyId, r.AliasName = keyID, alias
	resp, err := send(ctx, c, (*kms.Client).UpdateAlias, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// DeleteAlias implements KMS.
func (c *Client) DeleteAlias(ctx context.Context, alias string) (Ack, error) {
	r := kms.CreateDeleteAliasRequest()
	r.AliasName = alias
	resp, err := send(ctx, c, (*kms.Client).DeleteAlias, r)
	if err != nil {
		return Ack{}, err
	}
	return ack(r, resp.RequestId)
}

// ListAliases implements KMS.
func (c *Client) ListAliases(ctx context.Context, page Page) (*AliasList, error) {
	r := kms.CreateListAliasesRequest()
	r.PageNumber, r.PageSize = optional(page.Number), optional(page.Size)
	resp, err := send(ctx, c, (*kms.Client).ListAliases, r)
	if err != nil {
		return nil, err
	}
	return aliasList(r, resp.RequestId, Page{resp.PageNumber, resp.PageSize}, resp.TotalCount, resp.Aliases.Alias)
}

// ListAliasesByKeyID implements KMS.
func (c *Client) ListAliasesByKeyID(ctx context.Context, keyID string, page Page) (*AliasList, error) {
	r := kms.CreateListAliasesByKeyIdRequest()
	r.KeyId = keyID
	r.PageNumber, r.PageSize = optional(page.Number), optional(page.Size)
	resp, err := send(ctx, c, (*kms.Client).ListAliasesByKeyId, r)
	if err != nil {
		return nil, err
	}
	return aliasList(r, resp.RequestId, Page{resp.PageNumber, resp.PageSize}, resp.TotalCount, resp.Aliases.Alias)
}

func aliasList(r requests.AcsRequest, requestID string, page Page, total int, aliases []kms.Alias) (*AliasList, error) {
	f := fieldsOf(r, requestID)
	list := &AliasList{Page: f.page(page.Number, page.Size, total, len(aliases)), Total: total, RequestID: requestID}
	for _, a := range aliases {
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
