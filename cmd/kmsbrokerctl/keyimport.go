package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/internal/expiry"
)

const renewUsage = "how long before the expiry the daemon imports the material again: never, or a number of days such as 14d"

const expiresUsage = "when KMS forgets the material: never, a number of days such as 90d, or an RFC 3339 time"

// importFlags are common to import, rotate and add-region.
type importFlags struct {
	alias, description, algorithm, expires, renew string
	dryRun                                        bool
}

func (f *importFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.alias, "alias", "", "alias of the CMK, alias/NAME")
	flags.StringVar(&f.description, "description", "", "description of the CMK")
	flags.StringVar(&f.algorithm, "wrapping-algorithm", "auto", "auto, RSAES_OAEP_SHA_256, RSAES_OAEP_SHA_1 or RSAES_PKCS1_V1_5")
	flags.StringVar(&f.expires, "expires", expiry.Never, expiresUsage)
	flags.StringVar(&f.renew, "renew", expiry.Never, renewUsage)
	flags.BoolVar(&f.dryRun, "dry-run", false, "show the plan and what would be asked of whom, and make nothing")
}

func (f *importFlags) request(cmd *cobra.Command, name string) (*v1.ImportKeyRequest, error) {
	req := &v1.ImportKeyRequest{
		Name:              name,
		Alias:             given(cmd, "alias", f.alias),
		Description:       given(cmd, "description", f.description),
		WrappingAlgorithm: given(cmd, "wrapping-algorithm", f.algorithm),
		Expires:           given(cmd, "expires", f.expires),
		Renew:             given(cmd, "renew", f.renew),
	}
	return req, checkExpires(req.Expires)
}

// startImport runs an import, or shows its plan. next is the command that
// continues it.
func (c *ctl) startImport(cmd *cobra.Command, f *importFlags, kind v1.PlanKeyRequest_Kind, call importCall, req *v1.ImportKeyRequest, next string) error {
	return c.control(func(conn *client.Conn, control v1.ControlClient) error {
		if f.dryRun {
			plan, err := control.PlanKey(cmd.Context(), &v1.PlanKeyRequest{Request: req, Kind: kind})
			if err != nil {
				return err
			}
			return c.showPlan(plan)
		}
		stream, err := call(control, cmd.Context(), req)
		if err != nil {
			return err
		}
		return c.importResult(conn, stream, "what was done is on record: `"+next+"` continues it")
	})
}

type importCall func(v1.ControlClient, context.Context, *v1.ImportKeyRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[v1.ImportEvent], error)

func (c *ctl) showPlan(plan *v1.PlanKeyResponse) error {
	if c.output == "json" {
		return printJSONList(c, plan.GetSteps())
	}
	rows := [][]string{{"STEP", "REGION", "", "WHAT"}}
	for _, s := range plan.GetSteps() {
		state := "would"
		switch s.GetState() {
		case v1.ImportEvent_STATE_DONE:
			state = "checked"
		case v1.ImportEvent_STATE_SKIPPED:
			state = "done before"
		default:
		}
		rows = append(rows, []string{s.GetName(), orDash(s.GetRegion()), state, s.GetDetail()})
	}
	return c.table(rows)
}

func (c *ctl) keyImport() *cobra.Command {
	var f importFlags
	var backend string
	var regions []string
	cmd := &cobra.Command{
		Use:   "import NAME --backend BACKEND",
		Short: "Generate a key in an HSM and import it as a new CMK",
		Long: `Generate an AES-256 key in an HSM, wrap it there under a key of KMS, and import
it as the material of a new EXTERNAL CMK, in one region or in several. Each step is
journaled: ` + "`key import NAME`" + ` continues an import that was interrupted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd, args[0])
			if err != nil {
				return err
			}
			req.Backend, req.Regions = backend, regions
			err = c.startImport(cmd, &f, v1.PlanKeyRequest_KIND_IMPORT, v1.ControlClient.ImportKey, req, "kmsbrokerctl key import "+args[0])
			if e, ok := errors.AsType[*client.Error](err); ok && e.Reason == "BACKEND" {
				return usagef("%s", e.Message) // only the daemon knew that no import is to be continued
			}
			return err
		},
	}
	cmd.Flags().StringVar(&backend, "backend", "", "HSM backend to generate the key in (required, unless an import is continued)")
	cmd.Flags().StringArrayVar(&regions, "region", nil, "region of the CMK; may be repeated, the first is the key's home (default: the configured one)")
	f.add(cmd)
	return cmd
}

func (c *ctl) keyRotate() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a key a new HSM key and new CMKs; the old ones go on decrypting",
		Long: `Imported material cannot be rotated in place, so a new key is generated in the HSM
and imported as a new CMK in every region of the key; its alias moves there, and new
data is encrypted with it. The old CMKs stay for decrypting until they are deleted
with ` + "`key schedule-deletion --key-id`" + `; ` + "`kmsbrokerctl reencrypt`" + ` moves blobs first.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd, args[0])
			if err != nil {
				return err
			}
			return c.startImport(cmd, &f, v1.PlanKeyRequest_KIND_ROTATE, v1.ControlClient.RotateKey, req, "kmsbrokerctl key rotate "+args[0])
		},
	}
	f.add(cmd)
	return cmd
}

func (c *ctl) keyAddRegion() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use: "add-region NAME REGION...", Short: "Import the HSM key of a key in more regions", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd, args[0])
			if err != nil {
				return err
			}
			req.Regions = args[1:]
			return c.startImport(cmd, &f, v1.PlanKeyRequest_KIND_ADD_REGION, v1.ControlClient.AddRegion, req, "kmsbrokerctl key add-region "+args[0])
		},
	}
	f.add(cmd)
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
	var expires, renew, keyID string
	cmd := &cobra.Command{
		Use:   "reimport NAME",
		Short: "Import the same HSM key into its CMKs again, after expiry or deletion of the material",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &v1.ReimportKeyRequest{
				Name: args[0], KeyId: keyID, Expires: given(cmd, "expires", expires), Renew: given(cmd, "renew", renew),
			}
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
	cmd.Flags().StringVar(&renew, "renew", "", renewUsage+" (default: unchanged)")
	cmd.Flags().StringVar(&keyID, "key-id", "", "one CMK, also of an earlier generation (default: the current ones of all regions)")
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
			if err := c.confirm(cmd.Context(), "key", args[0], "its unfinished import is forgotten and cannot be continued", yes); err != nil {
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
				if len(left.GetKeyIds()) > 0 {
					fmt.Fprintln(c.stderr, "a CMK costs money until it is deleted: `kmsbrokerctl key adopt NAME --cmk KEY_ID` and `key schedule-deletion NAME` do that")
				}
				return c.fields("Forgotten", left.GetName(), "HSM key left behind", left.GetHsmKeyId(), "CMKs left behind", strings.Join(left.GetKeyIds(), ", "))
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
