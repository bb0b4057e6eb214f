package main

import (
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

func (c *ctl) keyAdopt() *cobra.Command {
	req := &v1.AdoptKeyRequest{}
	cmd := &cobra.Command{
		Use:   "adopt NAME --cmk ID|ARN|ALIAS",
		Short: "Give a name to a CMK that was made without the broker",
		Long: `Give a name to a CMK that was made without the broker, so that applications can
be granted its use. With --backend and --hsm-key the broker can import its material
again from that HSM key; ` + "`key verify --material`" + ` then shows that it is the right one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Cmk == "" {
				return usagef("--cmk is missing: which CMK shall have the name?")
			}
			req.Name = args[0]
			return c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) { return control.AdoptKey(cmd.Context(), req) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Cmk, "cmk", "", "key ID, ARN or alias of the CMK (required)")
	flags.StringVar(&req.Region, "region", "", "region of the CMK (default: the configured one)")
	flags.StringVar(&req.Backend, "backend", "", "HSM backend that holds its material")
	flags.StringVar(&req.HsmKeyId, "hsm-key", "", "CKA_ID of the HSM key in hex, as `kmsbrokerctl backend keys` shows it")
	cmd.MarkFlagsRequiredTogether("backend", "hsm-key")
	return cmd
}

func (c *ctl) keyForget() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "forget NAME", Args: cobra.ExactArgs(1),
		Short: "Remove a name; its CMKs and HSM keys stay and are shown once more",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.confirm(cmd.Context(), "key", args[0], "applications can no longer use it, and its history ends unless `key evidence` has kept it; its CMKs and HSM keys stay", yes); err != nil {
				return err
			}
			err := c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) {
				return control.ForgetKey(cmd.Context(), &v1.KeyRequest{Name: args[0]})
			})
			if err == nil {
				fmt.Fprintln(c.stderr, "forgotten; `kmsbrokerctl key adopt` takes a CMK back")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
