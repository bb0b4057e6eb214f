package main

import (
	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

func (c *ctl) keySeal() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "seal NAME", Args: cobra.ExactArgs(1),
		Short: "Make the HSM key unextractable for ever",
		Long: `Set CKA_EXTRACTABLE of the HSM key to false, which no HSM takes back: the key can
never be wrapped again, not for a re-import after the material was lost, not for
another region and not for ` + "`key verify --material`" + `. Only material that never expires
can be sealed. The HSM must allow changes of attributes (Luna: partition policy 11).`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.confirm(cmd.Context(), "key", args[0], "its HSM key can never be exported again; re-import ends here, for ever", yes); err != nil {
				return err
			}
			return c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) {
				return control.SealKey(cmd.Context(), &v1.KeyRequest{Name: args[0]})
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
