package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) keyDeleteMaterial() *cobra.Command {
	var yes bool
	var target targetFlags
	cmd := &cobra.Command{
		Use: "delete-material NAME", Args: cobra.ExactArgs(1),
		Short: "Delete the key material in KMS; `key reimport` brings it back from the HSM",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.confirm(cmd.Context(), "key", args[0], "nothing can be decrypted with it until it is imported again", yes); err != nil {
				return err
			}
			return c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) {
				return control.DeleteKeyMaterial(cmd.Context(), target.of(args[0]))
			})
		},
	}
	target.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// What ScheduleKeyDeletion takes.
const minDeletionDays, maxDeletionDays = 7, 366

func (c *ctl) keyScheduleDeletion() *cobra.Command {
	var yes bool
	var days uint32
	var target targetFlags
	cmd := &cobra.Command{
		Use: "schedule-deletion NAME", Args: cobra.ExactArgs(1),
		Short: "Have KMS delete CMKs after some days: what was encrypted with them is then lost",
		RunE: func(cmd *cobra.Command, args []string) error {
			if days < minDeletionDays || days > maxDeletionDays {
				return usagef("--days: KMS waits %d to %d days before it deletes a CMK, not %d", minDeletionDays, maxDeletionDays, days)
			}
			consequence := fmt.Sprintf("%s will be deleted in %d days and everything encrypted with it is lost", target.what(), days)
			if err := c.confirm(cmd.Context(), "key", args[0], consequence, yes); err != nil {
				return err
			}
			return c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) {
				return control.ScheduleKeyDeletion(cmd.Context(), &v1.ScheduleKeyDeletionRequest{Target: target.of(args[0]), Days: days})
			})
		},
	}
	target.add(cmd)
	cmd.Flags().Uint32Var(&days, "days", 30, "how long to wait, 7 to 366")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (c *ctl) keyProtect() *cobra.Command {
	var reason string
	cmd := c.protection("protect", "Have KMS refuse the deletion of CMKs", true, &reason)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who try to delete them")
	return cmd
}

func (c *ctl) keyUnprotect() *cobra.Command {
	return c.protection("unprotect", "Let CMKs be deleted again", false, new(string))
}

func (c *ctl) protection(use, short string, enabled bool, reason *string) *cobra.Command {
	var target targetFlags
	cmd := &cobra.Command{
		Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) {
				return control.ProtectKey(cmd.Context(), &v1.ProtectKeyRequest{Target: target.of(args[0]), Enabled: enabled, Reason: *reason})
			})
		},
	}
	target.add(cmd)
	return cmd
}

func (c *ctl) keyTag() *cobra.Command {
	var target targetFlags
	cmd := &cobra.Command{
		Use: "tag NAME TAG=VALUE... TAG-...", Args: cobra.MinimumNArgs(2),
		Short: "Set tags of CMKs; a name that ends with a dash removes that tag",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &v1.TagKeyRequest{Target: target.of(args[0]), Set: map[string]string{}}
			for _, tag := range args[1:] {
				name, value, set := strings.Cut(tag, "=")
				removed, remove := strings.CutSuffix(tag, "-")
				switch {
				case set && name != "":
					req.Set[name] = value
				case !set && remove && removed != "":
					req.Remove = append(req.Remove, removed)
				default:
					return usagef("%q is neither TAG=VALUE nor TAG-", tag)
				}
			}
			return c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) { return control.TagKey(cmd.Context(), req) })
		},
	}
	target.add(cmd)
	return cmd
}

func (c *ctl) keySetDescription() *cobra.Command {
	var target targetFlags
	cmd := &cobra.Command{
		Use: "set-description NAME TEXT", Short: "Change the description of CMKs", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) {
				return control.SetDescription(cmd.Context(), &v1.SetDescriptionRequest{Target: target.of(args[0]), Description: args[1]})
			})
		},
	}
	target.add(cmd)
	return cmd
}

func (c *ctl) keyDescribe() *cobra.Command {
	var target targetFlags
	cmd := &cobra.Command{
		Use: "describe NAME", Short: "Show all that KMS says of the CMKs of a key, tags included", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.KeyDetails(cmd.Context(), target.of(args[0]))
				if err != nil {
					return err
				}
				if c.output == "json" {
					return printJSONList(c, answer.GetDetails())
				}
				for i, d := range answer.GetDetails() {
					if i > 0 {
						fmt.Fprintln(c.stdout)
					}
					if err := c.showDetail(d); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	target.add(cmd)
	return cmd
}

func (c *ctl) showDetail(d *v1.KeyDetailsResponse_Detail) error {
	var tags []string
	for name, value := range d.GetTags() {
		tags = append(tags, name+"="+value)
	}
	return c.fields(
		"Region", d.GetRegion(), "Key ID", d.GetKeyId(), "ARN", d.GetArn(), "State", d.GetState(), "Origin", d.GetOrigin(),
		"Spec", d.GetSpec(), "Usage", d.GetUsage(), "Protection level", d.GetProtectionLevel(), "KMS instance", d.GetInstanceId(),
		"Description", d.GetDescription(), "Creator", d.GetCreator(), "Created", timeText(d.GetCreatedAt(), ""),
		"Deletion protection", d.GetDeletionProtection(), "Deleted at", timeText(d.GetDeleteAt(), ""),
		"Material expires", timeText(d.GetMaterialExpiresAt(), "never"), "Tags", strings.Join(sorted(tags), ", "))
}
