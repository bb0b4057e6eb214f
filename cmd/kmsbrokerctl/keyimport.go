package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) keyImport() *cobra.Command {
	req := &v1.ImportKeyRequest{}
	var expires string
	cmd := &cobra.Command{
		Use:   "import NAME --backend BACKEND",
		Short: "Generate a key in an HSM and import it as a new CMK",
		Long: `Generate an AES-256 key in an HSM, wrap it there under a key of KMS, and import
it as the material of a new EXTERNAL CMK. Each step is journaled: the same command
continues an import that was interrupted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.GetBackend() == "" {
				return usagef("--backend is missing: which HSM shall generate the key? `kmsbrokerctl backend list` shows them")
			}
			req.Name = args[0]
			at, _, err := parseExpiry(expires, time.Now())
			if err != nil {
				return err
			}
			req.MaterialExpiresAt = at
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				stream, err := control.ImportKey(cmd.Context(), req)
				if err != nil {
					return err
				}
				return c.importResult(stream)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Backend, "backend", "", "HSM backend to generate the key in (required)")
	flags.StringVar(&req.Region, "region", "", "region of the CMK (default: the configured one)")
	flags.StringVar(&req.Alias, "alias", "", "alias of the CMK, alias/NAME")
	flags.StringVar(&req.Description, "description", "", "description of the CMK")
	flags.StringVar(&req.WrappingAlgorithm, "wrapping-algorithm", "auto", "auto, RSAES_OAEP_SHA_256, RSAES_OAEP_SHA_1 or RSAES_PKCS1_V1_5")
	flags.StringVar(&expires, "expires", "never", "when KMS forgets the material: never, a number of days such as 90d, or an RFC 3339 time")
	return cmd
}

func (c *ctl) keyReimport() *cobra.Command {
	var expires string
	cmd := &cobra.Command{
		Use:   "reimport NAME",
		Short: "Import the same HSM key into its CMK again, after expiry or deletion of the material",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &v1.ReimportKeyRequest{Name: args[0]}
			if cmd.Flags().Changed("expires") {
				at, never, err := parseExpiry(expires, time.Now())
				if err != nil {
					return err
				}
				req.MaterialExpiresAt, req.NeverExpires = at, never
			}
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				stream, err := control.ReimportKey(cmd.Context(), req)
				if err != nil {
					return err
				}
				return c.importResult(stream)
			})
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "", "new expiry: never, 90d or an RFC 3339 time (default: unchanged)")
	return cmd
}

func (c *ctl) importResult(stream grpc.ServerStreamingClient[v1.ImportEvent]) error {
	key, err := c.follow(stream)
	if err != nil {
		return err
	}
	return c.showKey(key)
}

// parseExpiry reads never, a number of days from now, or a time.
func parseExpiry(s string, now time.Time) (at *timestamppb.Timestamp, never bool, err error) {
	if s == "never" {
		return nil, true, nil
	}
	if number, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.Atoi(number)
		if err == nil && days > 0 && days <= 36500 {
			return timestamppb.New(now.AddDate(0, 0, days).Truncate(time.Second)), false, nil
		}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil, false, usagef("--expires %q is not never, a number of days such as 90d, or an RFC 3339 time such as 2030-01-31T00:00:00Z", s)
	}
	return timestamppb.New(t), false, nil
}
