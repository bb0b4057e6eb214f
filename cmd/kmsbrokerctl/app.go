package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

func (c *ctl) appCommand() *cobra.Command {
	return noun("app", "Issue and revoke the access keys of applications that call over TCP", c.appIssue(), c.appList(), c.appRevoke())
}

func (c *ctl) appIssue() *cobra.Command {
	var out keyOutput
	cmd := &cobra.Command{
		Use: "issue NAME --out FILE", Short: "Issue an access key to an application", Args: cobra.ExactArgs(1),
		Long: `Issue an access key to an application, with which it signs its calls to the TCP address of [alibaba] as it would
sign them for Alibaba Cloud. What it may do is decided by the grants to it (apps = ["NAME"] in a [[grant]]); the key by
itself allows nothing. An application that can use a Unix socket needs no key.

The secret goes into the file and is shown nowhere; kmsbrokerd keeps it in its registry, because a signature cannot be
verified without it. An application can have two access keys, so that one can be replaced: issue the second, hand it
over, and revoke the first.`,
		Example: `  kmsbrokerctl app issue web --out web-key.toml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return c.issueAppKey(cmd.Context(), args[0], &out)
		},
	}
	out.add(cmd)
	return cmd
}

// issueAppKey has a place for the key before there is one, and takes back a key that
// does not reach it.
func (c *ctl) issueAppKey(ctx context.Context, app string, out *keyOutput) error {
	slot, err := out.reserve(ctx)
	if err != nil {
		return err
	}
	defer slot.abandon()
	return c.control(func(_ *client.Conn, control v1.ControlClient) error {
		answer, err := control.IssueAppKey(ctx, &v1.IssueAppKeyRequest{App: app})
		if err != nil {
			return err
		}
		id := answer.GetKey().GetAccessKeyId()
		if err := slot.deliver(ctx, kmsapi.Credentials{AccessKeyID: id, AccessKeySecret: answer.GetAccessKeySecret()}); err != nil {
			_, revokeErr := control.RevokeAppKeys(context.WithoutCancel(ctx), &v1.RevokeAppKeysRequest{AppOrAccessKeyId: id})
			return errors.Join(err, revokeErr)
		}
		if c.output == "json" {
			return c.printJSON(answer.GetKey())
		}
		return c.fields("Application", answer.GetKey().GetApp(), "Access key", id, "Written to", out.path)
	})
}

func (c *ctl) appList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the access keys of all applications", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.ListAppKeys(cmd.Context(), &v1.ListAppKeysRequest{})
				if err != nil {
					return err
				}
				return c.printAppKeys(answer.GetKeys())
			})
		},
	}
}

func (c *ctl) appRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME|KEYID", Short: "Revoke an access key, or all of an application", Args: cobra.ExactArgs(1),
		Long: `Revoke an access key, or all access keys of an application. Calls that begin afterwards are refused, on
connections that are open too.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.RevokeAppKeys(cmd.Context(), &v1.RevokeAppKeysRequest{AppOrAccessKeyId: args[0]})
				if err != nil {
					return err
				}
				if c.output == "table" {
					fmt.Fprintln(c.stderr, "revoked:")
				}
				return c.printAppKeys(answer.GetKeys())
			})
		},
	}
}

func (c *ctl) printAppKeys(keys []*v1.AppKey) error {
	if c.output == "json" {
		return printJSONList(c, keys)
	}
	rows := [][]string{{"APPLICATION", "ACCESS KEY", "ISSUED AT"}}
	for _, key := range keys {
		rows = append(rows, []string{key.GetApp(), key.GetAccessKeyId(), timeText(key.GetIssuedAt(), "-")})
	}
	return c.table(rows)
}
