package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) keyCommand() *cobra.Command {
	return noun("key", "Import and manage keys",
		c.keyImport(), c.keyRotate(), c.keyAddRegion(), c.keyAbandon(), c.keyReimport(), c.keyVerify(), c.keyEvidence(),
		c.keyList(), c.keyShow(), c.keyDescribe(), c.keyAdopt(), c.keyForget(),
		c.keyChange("enable", "Enable the CMKs of a key", v1.ControlClient.EnableKey),
		c.keyChange("disable", "Disable the CMKs of a key: nothing can be encrypted or decrypted with them", v1.ControlClient.DisableKey),
		c.keyChange("cancel-deletion", "Keep CMKs whose deletion was scheduled", v1.ControlClient.CancelKeyDeletion),
		c.keyDeleteMaterial(), c.keyScheduleDeletion(), c.keyProtect(), c.keyUnprotect(), c.keyTag(), c.keySetDescription(), c.keySeal())
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
					fmt.Fprintf(c.stderr, "unfinished: %s of %s in %s (step %s): `%s` continues it\n",
						imp.GetKind(), imp.GetName(), strings.Join(imp.GetRegions(), ", "), imp.GetLastStep(), continueCommand(imp))
				}
				if c.output == "json" {
					return printJSONList(c, answer.GetKeys())
				}
				rows := [][]string{{"NAME", "STATE", "KEY ID", "REGION", "BACKEND", "ALIAS", "MATERIAL EXPIRES"}}
				for _, k := range answer.GetKeys() {
					rows = append(rows, []string{k.GetName(), k.GetState(), k.GetKeyId(), regionsOf(k), orDash(k.GetBackend()),
						orDash(k.GetAlias()), timeText(k.GetMaterialExpiresAt(), "never")})
				}
				return c.table(rows)
			})
		},
	}
}

// regionsOf lists the regions in which a key encrypts, the home region first.
func regionsOf(k *v1.Key) string {
	regions := []string{k.GetRegion()}
	for _, cmk := range k.GetCmks() {
		if cmk.GetCurrent() && cmk.GetRegion() != k.GetRegion() {
			regions = append(regions, cmk.GetRegion())
		}
	}
	return strings.Join(regions, ", ")
}

func continueCommand(imp *v1.UnfinishedImport) string {
	return "kmsbrokerctl key " + imp.GetKind() + " " + imp.GetName()
}

func (c *ctl) keyShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a key and its present state in KMS", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) {
				return control.ShowKey(cmd.Context(), &v1.KeyRequest{Name: args[0]})
			})
		},
	}
}

func (c *ctl) showKey(k *v1.Key) error {
	if c.output == "json" {
		return c.printJSON(k)
	}
	renewal := ""
	if ahead := k.GetRenewAhead().AsDuration(); ahead > 0 {
		renewal = fmt.Sprintf("by the daemon, %d days ahead", int(ahead.Hours()/24))
	}
	sealed := ""
	if i := slices.IndexFunc(k.GetCmks(), func(cmk *v1.CMK) bool { return cmk.GetKeyId() == k.GetKeyId() }); i >= 0 && k.GetCmks()[i].GetSealed() {
		sealed = "yes: its HSM key can never be exported again"
	}
	err := c.fields(
		"Name", k.GetName(), "State", k.GetState(), "Key ID", k.GetKeyId(), "ARN", k.GetArn(), "Region", k.GetRegion(),
		"Alias", k.GetAlias(), "Description", k.GetDescription(), "Backend", k.GetBackend(), "HSM key ID", k.GetHsmKeyId(),
		"Check value", k.GetCheckValue(), "Wrapping algorithm", k.GetWrappingAlgorithm(),
		"Material expires", timeText(k.GetMaterialExpiresAt(), "never"), "Renewed", renewal, "Sealed", sealed, "Created", timeText(k.GetCreatedAt(), ""))
	if err != nil || len(k.GetCmks()) < 2 && k.GetCmks()[0].GetRenewalError() == "" {
		return err
	}
	fmt.Fprintln(c.stdout)
	rows := [][]string{{"CMK", "REGION", "STATE", "USE", "HSM KEY ID", "MATERIAL EXPIRES", "RENEWAL"}}
	for _, cmk := range k.GetCmks() {
		use := "decrypts"
		if cmk.GetCurrent() {
			use = "current"
		}
		rows = append(rows, []string{cmk.GetKeyId(), cmk.GetRegion(), cmk.GetState(), use, orDash(cmk.GetHsmKeyId()),
			timeText(cmk.GetMaterialExpiresAt(), "never"), orDash(cmk.GetRenewalError())})
	}
	return c.table(rows)
}

// keyAnswer shows the key that a call returns.
func (c *ctl) keyAnswer(call func(v1.ControlClient) (*v1.Key, error)) error {
	return c.control(func(_ *client.Conn, control v1.ControlClient) error {
		key, err := call(control)
		if err != nil {
			return err
		}
		return c.showKey(key)
	})
}

// targetFlags choose among the CMKs of a key.
type targetFlags struct{ region, keyID string }

func (f *targetFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.region, "region", "", "the CMK of one region (default: those of all regions)")
	cmd.Flags().StringVar(&f.keyID, "key-id", "", "one CMK, also of an earlier generation")
	cmd.MarkFlagsMutuallyExclusive("region", "key-id")
}

func (f *targetFlags) of(name string) *v1.Target {
	return &v1.Target{Name: name, Region: f.region, KeyId: f.keyID}
}

// what names the CMKs to a person.
func (f *targetFlags) what() string {
	switch {
	case f.keyID != "":
		return "CMK " + f.keyID
	case f.region != "":
		return "its current CMK in " + f.region
	default:
		return "its current CMK, in every region where it has one,"
	}
}

type targetCall func(v1.ControlClient, context.Context, *v1.Target, ...grpc.CallOption) (*v1.Key, error)

// keyChange is a command that changes CMKs and shows their key afterwards.
func (c *ctl) keyChange(use, short string, call targetCall) *cobra.Command {
	var target targetFlags
	cmd := &cobra.Command{
		Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.keyAnswer(func(control v1.ControlClient) (*v1.Key, error) {
				return call(control, cmd.Context(), target.of(args[0]))
			})
		},
	}
	target.add(cmd)
	return cmd
}

// confirm has a person type a name; where nobody can be asked, --yes says it.
func (c *ctl) confirm(ctx context.Context, kind, name, consequence string, yes bool) error {
	if yes {
		return nil
	}
	terminal, ok := c.terminal()
	if !ok || !isTerminal(c.stderr) {
		return usagef("%s %s: %s; add --yes to do it without a terminal", kind, name, consequence)
	}
	fmt.Fprintf(c.stderr, "Attention, %s %s: %s.\nType its name to go on: ", kind, name, consequence)
	line, err := lineUntil(ctx, terminal)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(line)) != name {
		return errors.New("not confirmed, nothing was done")
	}
	return nil
}
