package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/kmsapi/ram"
)

// provisionFlags say what the user may do and where the access key goes.
type provisionFlags struct {
	ramFlags
	out     keyOutput
	keys    []string
	manage  bool
	aliases []string
}

func (c *ctl) ramProvision() *cobra.Command {
	var f provisionFlags
	cmd := &cobra.Command{
		Use:   "provision --user U --key NAME... --out FILE",
		Short: "Make a RAM user who may use certain keys and nothing else, with an access key",
		Long: `Make a RAM user, a policy for exactly the CMKs of the named keys, and one access key,
which is written to a new file or encrypted as a systemd credential. Run again, it
corrects the policy and keeps the rest.

The user may encrypt, decrypt, make data keys and describe the CMKs. With --manage the
user may also import: make CMKs, which carry the broker's instance ID as a tag, and
manage those and the named ones.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(f.keys) == 0 && !f.manage {
				return usagef("--key is missing: which keys shall the user have? (or --manage, to begin without any)")
			}
			if len(f.aliases) > 0 && !f.manage {
				return usagef("--alias is of no use without --manage: using a key by its alias needs no permission on the alias")
			}
			if err := f.out.check(); err != nil {
				return err
			}
			return f.withRAM(func(cloud *ram.Client) error {
				document, err := c.grantDocument(cmd.Context(), &f)
				if err != nil {
					return err
				}
				return c.provision(cmd.Context(), cloud, &f, document)
			})
		},
	}
	f.add(cmd)
	f.out.add(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&f.keys, "key", nil, "name of a key that the user may use; may be repeated")
	flags.BoolVar(&f.manage, "manage", false, "the user may also import, re-import and rotate")
	flags.StringArrayVar(&f.aliases, "alias", nil, "with --manage: an alias that future imports may set, alias/NAME; may be repeated")
	return cmd
}

// grantDocument asks the daemon which CMKs the keys are.
func (c *ctl) grantDocument(ctx context.Context, f *provisionFlags) (string, error) {
	var grant ram.Grant
	err := c.control(func(_ *client.Conn, control v1.ControlClient) error {
		list, err := control.ListKeys(ctx, &v1.ListKeysRequest{})
		if err != nil {
			return err
		}
		if grant.Keys, err = cmksOf(list.GetKeys(), f.keys); err != nil || !f.manage {
			return err
		}
		status, err := control.Status(ctx, &v1.StatusRequest{})
		if err != nil {
			return err
		}
		grant.Manage = &ram.Manage{Regions: []string{status.GetEndpoint().GetRegion()}, Instance: status.GetInstanceId(), Aliases: f.aliases}
		for _, other := range status.GetOtherRegions() {
			grant.Manage.Regions = append(grant.Manage.Regions, other.GetRegion())
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return grant.Document()
}

func cmksOf(known []*v1.Key, names []string) ([]ram.Key, error) {
	var keys []ram.Key
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		i := slices.IndexFunc(known, func(k *v1.Key) bool { return k.GetName() == name })
		if i < 0 {
			return nil, &client.Error{
				Code: codes.NotFound, Message: "there is no key " + name, Hint: "`kmsbrokerctl key list` shows the keys",
				Err: errors.New("unknown key"),
			}
		}
		// Those of all regions and generations: old ciphertexts must stay readable.
		for _, cmk := range known[i].GetCmks() {
			keys = append(keys, ram.Key{ARN: cmk.GetArn(), Alias: known[i].GetAlias()})
		}
	}
	return keys, nil
}

func (c *ctl) provision(ctx context.Context, cloud *ram.Client, f *provisionFlags, document string) error {
	present, err := f.out.present(ctx)
	if err != nil {
		return err
	}
	var deliver ram.Deliver
	if present == "" {
		slot, err := f.out.reserve(ctx)
		if err != nil {
			return err
		}
		defer slot.abandon()
		deliver = slot.deliver
	}
	made, err := cloud.Provision(ctx, f.user, document, present, deliver)
	for _, change := range made.Changes {
		fmt.Fprintf(c.stderr, "%s\n", printable(change))
	}
	if err != nil {
		return err
	}
	if len(made.OtherPolicies) > 0 {
		fmt.Fprintf(c.stderr, "attention: user %s has other policies too, and may do what they allow: %s\n", f.user, printable(strings.Join(made.OtherPolicies, ", ")))
	}
	if c.output == "json" {
		return c.writeObject(struct {
			ram.Provisioned
			Out string `json:"out"`
		}{made, f.out.path})
	}
	return c.fields("User", made.User, "Policy", made.Policy, "Policy version", made.PolicyVersion,
		"Access key", made.AccessKeyID, "Written to", f.out.path)
}
