package main

import (
	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) backendInitToken() *cobra.Command {
	var label, soPINFile, pinFile string
	cmd := &cobra.Command{
		Use: "init-token NAME --label LABEL", Args: cobra.ExactArgs(1),
		Short: "Make a new token for development (SoftHSM only)",
		Long: `Make a new token with the settings of a backend, for development. SoftHSM allows it;
partitions of Luna HSMs and of DPoD are made with the vendor's lunacm. The PINs are asked for
on the terminal, or come from files that nobody else can read.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if label == "" {
				return usagef("--label is missing: what shall the token be called?")
			}
			soPIN, err := c.newSecret(cmd.Context(), "PIN of the new security officer", soPINFile)
			if err != nil {
				return err
			}
			defer clear(soPIN)
			pin, err := c.newSecret(cmd.Context(), "PIN of the new Crypto Officer", pinFile)
			if err != nil {
				return err
			}
			defer clear(pin)
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				made, err := control.InitToken(cmd.Context(), &v1.InitTokenRequest{Name: args[0], Label: label, SoPin: soPIN, Pin: pin})
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.printJSON(made)
				}
				return c.fields("Token", label, "Serial", made.GetSerial())
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&label, "label", "", "label of the token (required)")
	flags.StringVar(&soPINFile, "so-pin-file", "", "file with the security officer's PIN, mode 0600 (default: ask)")
	flags.StringVar(&pinFile, "pin-file", "", "file with the Crypto Officer's PIN, mode 0600 (default: ask)")
	return cmd
}
