package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/internal/expiry"
)

const expiresUsage = "when KMS forgets the material: never, a number of days such as 90d, or an RFC 3339 time"

func (c *ctl) keyImport() *cobra.Command {
	var backend, region, alias, description, algorithm, expires string
	cmd := &cobra.Command{
		Use:   "import NAME --backend BACKEND",
		Short: "Generate a key in an HSM and import it as a new CMK",
		Long: `Generate an AES-256 key in an HSM, wrap it there under a key of KMS, and import
it as the material of a new EXTERNAL CMK. Each step is journaled: the same command
continues an import that was interrupted, and may then leave the other flags out.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if backend == "" {
				return usagef("--backend is missing: which HSM shall generate the key? `kmsbrokerctl backend list` shows them")
			}
			req := &v1.ImportKeyRequest{
				Name: args[0], Backend: backend, Region: region,
				Alias:             given(cmd, "alias", alias),
				Description:       given(cmd, "description", description),
				WrappingAlgorithm: given(cmd, "wrapping-algorithm", algorithm),
				Expires:           given(cmd, "expires", expires),
			}
			if err := checkExpires(req.Expires); err != nil {
				return err
			}
			return c.control(func(conn *client.Conn, control v1.ControlClient) error {
				stream, err := control.ImportKey(cmd.Context(), req)
				if err != nil {
					return err
				}
				return c.importResult(conn, stream, fmt.Sprintf(
					"what was done is on record: `kmsbrokerctl key import %s --backend %s` continues the import", args[0], backend))
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&backend, "backend", "", "HSM backend to generate the key in (required)")
	flags.StringVar(&region, "region", "", "region of the CMK (default: the configured one)")
	flags.StringVar(&alias, "alias", "", "alias of the CMK, alias/NAME")
	flags.StringVar(&description, "description", "", "description of the CMK")
	flags.StringVar(&algorithm, "wrapping-algorithm", "auto", "auto, RSAES_OAEP_SHA_256, RSAES_OAEP_SHA_1 or RSAES_PKCS1_V1_5")
	flags.StringVar(&expires, "expires", expiry.Never, expiresUsage)
	return cmd
}

// given returns the value of a flag that was set, nil for one that was not.
func given(cmd *cobra.Command, flag, value string) *string {
	if !cmd.Flags().Changed(flag) {
		return nil
	}
	return &value
}

// checkExpires finds a mistake before the daemon does, which parses it again.
func checkExpires(text *string) error {
	if text == nil {
		return nil
	}
	if _, err := expiry.Parse(*text, time.Now()); err != nil {
		return usagef("--expires: %v", err)
	}
	return nil
}

func (c *ctl) keyReimport() *cobra.Command {
	var expires string
	cmd := &cobra.Command{
		Use:   "reimport NAME",
		Short: "Import the same HSM key into its CMK again, after expiry or deletion of the material",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &v1.ReimportKeyRequest{Name: args[0], Expires: given(cmd, "expires", expires)}
			if err := checkExpires(req.Expires); err != nil {
				return err
			}
			return c.control(func(conn *client.Conn, control v1.ControlClient) error {
				stream, err := control.ReimportKey(cmd.Context(), req)
				if err != nil {
					return err
				}
				return c.importResult(conn, stream, "repeat the command to finish it")
			})
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "", expiresUsage+" (default: unchanged)")
	return cmd
}

// importResult follows an import and shows its key. When it was interrupted,
// next says how to go on.
func (c *ctl) importResult(conn *client.Conn, stream grpc.ServerStreamingClient[v1.ImportEvent], next string) error {
	key, began, err := c.follow(stream)
	if err != nil {
		if began {
			fmt.Fprintln(c.stderr, printable(next))
		}
		return conn.Error(err)
	}
	return c.showKey(key)
}

func (c *ctl) keyAbandon() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "abandon NAME", Args: cobra.ExactArgs(1),
		Short: "Forget an unfinished import; what it made stays and is named",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.confirm("key", args[0], "its unfinished import is forgotten and cannot be continued", yes); err != nil {
				return err
			}
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				left, err := control.AbandonImport(cmd.Context(), &v1.KeyRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.printJSON(left)
				}
				return c.fields("Forgotten", left.GetName(), "HSM key left behind", left.GetHsmKeyId(), "CMK left behind", left.GetKeyId())
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
