package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/kmsapi/ram"
)

func (c *ctl) ramRevoke() *cobra.Command {
	var f ramFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke --user U",
		Short: "Delete a RAM user that provision made, with its access keys and policy",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.withRAM(func(cloud *ram.Client) error {
				// Before anybody is asked about a user that stays anyway.
				if err := cloud.CheckRevocable(cmd.Context(), f.user); err != nil {
					return err
				}
				if err := c.confirm(cmd.Context(), "user", f.user, "its access keys stop working at once, and it is deleted with its policy", yes); err != nil {
					return err
				}
				gone, err := cloud.Revoke(cmd.Context(), f.user)
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.writeObject(gone)
				}
				return c.fields("User", gone.User, "Access keys deleted", strings.Join(gone.AccessKeys, " "), "Policy deleted", gone.Policy)
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
