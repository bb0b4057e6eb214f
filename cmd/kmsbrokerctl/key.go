package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) keyCommand() *cobra.Command {
	return noun("key", "Import and manage keys",
		c.keyImport(), c.keyAbandon(), c.keyReimport(), c.keyVerify(), c.keyList(),
		c.keyVerb("show", "Show a key and its present state in KMS", v1.ControlClient.ShowKey),
		c.keyVerb("enable", "Enable the CMK of a key", v1.ControlClient.EnableKey),
		c.keyVerb("disable", "Disable the CMK of a key: nothing can be encrypted or decrypted with it", v1.ControlClient.DisableKey),
		c.keyVerb("cancel-deletion", "Keep a CMK whose deletion was scheduled", v1.ControlClient.CancelKeyDeletion),
		c.keyDeleteMaterial(), c.keyScheduleDeletion())
}

func (c *ctl) keyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys, with the state they were last seen in", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.ListKeys(cmd.Context(), &v1.ListKeysRequest{})
				if err != nil {
					return err
				}
				for _, imp := range answer.GetUnfinished() {
					fmt.Fprintf(c.stderr, "unfinished import of %s (step %s): `kmsbrokerctl key import %s --backend %s` continues it\n",
						imp.GetName(), imp.GetLastStep(), imp.GetName(), imp.GetBackend())
				}
				if c.output == "json" {
					return printJSONList(c, answer.GetKeys())
				}
				rows := [][]string{{"NAME", "STATE", "KEY ID", "REGION", "BACKEND", "ALIAS", "MATERIAL EXPIRES"}}
				for _, k := range answer.GetKeys() {
					rows = append(rows, []string{k.GetName(), k.GetState(), k.GetKeyId(), k.GetRegion(), k.GetBackend(),
						orDash(k.GetAlias()), timeText(k.GetMaterialExpiresAt(), "never")})
				}
				return c.table(rows)
			})
		},
	}
}

func (c *ctl) showKey(k *v1.Key) error {
	if c.output == "json" {
		return c.printJSON(k)
	}
	return c.fields(
		"Name", k.GetName(), "State", k.GetState(), "Key ID", k.GetKeyId(), "ARN", k.GetArn(), "Region", k.GetRegion(),
		"Alias", k.GetAlias(), "Description", k.GetDescription(), "Backend", k.GetBackend(), "HSM key ID", k.GetHsmKeyId(),
		"Check value", k.GetCheckValue(), "Wrapping algorithm", k.GetWrappingAlgorithm(),
		"Material expires", timeText(k.GetMaterialExpiresAt(), "never"), "Created", timeText(k.GetCreatedAt(), ""))
}

type keyCall func(v1.ControlClient, context.Context, *v1.KeyRequest, ...grpc.CallOption) (*v1.Key, error)

// keyVerb is a command that names a key and shows it afterwards.
func (c *ctl) keyVerb(use, short string, call keyCall) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.callKey(cmd, call, args[0]) },
	}
}

func (c *ctl) callKey(cmd *cobra.Command, call keyCall, name string) error {
	return c.control(func(_ *client.Conn, control v1.ControlClient) error {
		key, err := call(control, cmd.Context(), &v1.KeyRequest{Name: name})
		if err != nil {
			return err
		}
		return c.showKey(key)
	})
}

func (c *ctl) keyVerify() *cobra.Command {
	return &cobra.Command{
		Use: "verify NAME", Short: "Check a key from the side of KMS and of the HSM", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.VerifyKey(cmd.Context(), &v1.KeyRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if c.output == "json" {
					err = c.printJSON(answer)
				} else {
					err = c.table(checkRows(answer.GetChecks()))
				}
				if err != nil {
					return err
				}
				for _, check := range answer.GetChecks() {
					if !check.GetPassed() {
						return fmt.Errorf("key %s: check %q failed", args[0], check.GetName())
					}
				}
				return nil
			})
		},
	}
}

func checkRows(checks []*v1.VerifyKeyResponse_Check) [][]string {
	rows := [][]string{{"CHECK", "RESULT", "DETAIL"}}
	for _, check := range checks {
		result := "passed"
		if !check.GetPassed() {
			result = "FAILED"
		}
		rows = append(rows, []string{check.GetName(), result, check.GetDetail()})
	}
	return rows
}

func (c *ctl) keyDeleteMaterial() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete-material NAME", Args: cobra.ExactArgs(1),
		Short: "Delete the key material in KMS; `key reimport` brings it back from the HSM",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.confirm("key", args[0], "nothing can be decrypted with it until it is imported again", yes); err != nil {
				return err
			}
			return c.callKey(cmd, v1.ControlClient.DeleteKeyMaterial, args[0])
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (c *ctl) keyScheduleDeletion() *cobra.Command {
	var yes bool
	var days uint32
	cmd := &cobra.Command{
		Use: "schedule-deletion NAME", Args: cobra.ExactArgs(1),
		Short: "Have KMS delete the CMK after some days: what was encrypted with it is then lost",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.confirm("key", args[0], fmt.Sprintf("its CMK will be deleted in %d days and everything encrypted with it is lost", days), yes); err != nil {
				return err
			}
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				key, err := control.ScheduleKeyDeletion(cmd.Context(), &v1.ScheduleKeyDeletionRequest{Name: args[0], Days: days})
				if err != nil {
					return err
				}
				return c.showKey(key)
			})
		},
	}
	cmd.Flags().Uint32Var(&days, "days", 30, "how long to wait, 7 to 366")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirm has a person type a name; where nobody can be asked, --yes says it.
func (c *ctl) confirm(kind, name, consequence string, yes bool) error {
	if yes {
		return nil
	}
	if !isTerminal(c.stderr) {
		return usagef("%s %s: %s; add --yes to do it without a terminal", kind, name, consequence)
	}
	fmt.Fprintf(c.stderr, "Attention, %s %s: %s.\nType its name to go on: ", kind, name, consequence)
	line, err := bufio.NewReader(c.stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != name {
		return errors.New("not confirmed, nothing was done")
	}
	return nil
}
