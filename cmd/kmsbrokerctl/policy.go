package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) policyCommand() *cobra.Command {
	return noun("policy", "Reload the grants, and ask what they say", c.policyExplain(), c.policyReload())
}

func (c *ctl) policyReload() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Have the daemon read the grants of its configuration again", Args: cobra.NoArgs,
		Long: `Have the daemon read the grants of its configuration again, as SIGHUP does.
The new grants hold for every call that begins afterwards. When the file has mistakes, the old ones stay.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.ReloadPolicy(cmd.Context(), &v1.ReloadPolicyRequest{})
				if err != nil {
					return err
				}
				for _, setting := range answer.GetRestart() {
					fmt.Fprintf(c.stderr, "%s differs in the file, and stays as it is until kmsbrokerd is restarted\n", printable(setting))
				}
				if c.output == "json" {
					return c.printJSON(answer)
				}
				return c.fields("Grants", strconv.Itoa(int(answer.GetGrants())))
			})
		},
	}
}

func (c *ctl) policyExplain() *cobra.Command {
	req := &v1.ExplainPolicyRequest{}
	var entries []string
	cmd := &cobra.Command{
		Use: "explain --user USER|--app APP --key NAME --op OPERATION", Short: "Tell what a caller may do, and which grant decides", Args: cobra.NoArgs,
		Long: `Tell what a caller may do, and which grant decides. The exit status says that there is an answer, not which.
The caller is what a process of the user would be, in the unit that is named or in none; or an application that
is known by an access key.`,
		Example: `  kmsbrokerctl policy explain --user www-data --unit web.service --key payments --op decrypt --context tenant=acme`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			switch {
			case req.GetUser() == "" && req.GetApp() == "":
				return usagef("--user or --app is missing: who calls?")
			case req.GetApp() != "" && (req.GetUser() != "" || req.GetUnit() != "" || len(req.GetGroups()) > 0):
				return usagef("an application has no user, groups or unit: --app excludes --user, --group and --unit")
			case req.GetKey() == "":
				return usagef("--key is missing: with which key?")
			case req.GetOperation() == "":
				return usagef("--op is missing: encrypt, decrypt or another operation that grants can name")
			}
			if req.EncryptionContext, err = parseContext(entries); err != nil {
				return err
			}
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.ExplainPolicy(cmd.Context(), req)
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.printJSON(answer)
				}
				return c.showExplanation(answer)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.User, "user", "", "name or uid of the caller")
	flags.StringVar(&req.App, "app", "", "name of the application that calls, instead of a user")
	flags.StringArrayVar(&req.Groups, "group", nil, "name or gid of a group that the caller has besides those in /etc/group; may be repeated")
	flags.StringVar(&req.Unit, "unit", "", "systemd unit that the caller runs in, such as web.service (default: none)")
	flags.StringVar(&req.Key, "key", "", "name of the key (required)")
	flags.StringVar(&req.Operation, "op", "", "encrypt, decrypt, generate-data-key or generate-data-key-without-plaintext (required)")
	flags.StringArrayVar(&entries, "context", nil, "entry of the encryption context, NAME=VALUE; may be repeated")
	return cmd
}

func (c *ctl) showExplanation(e *v1.ExplainPolicyResponse) error {
	answer := "denied"
	if e.GetAllowed() {
		answer = "allowed"
	}
	rate := ""
	if e.GetRate() != "" {
		rate = e.GetRate() + " for each uid and each application"
	}
	caller := fmt.Sprintf("uid %d", e.GetCaller().GetUid())
	if name := e.GetCaller().GetUser(); name != "" {
		caller += " (" + name + ")"
	}
	if app := e.GetCaller().GetApp(); app != "" {
		caller = "app " + app
	}
	unit := e.GetCaller().GetUnit()
	if e.GetCaller().GetUnitUnknown() {
		unit = "unknown: " + e.GetCaller().GetNoUnit()
	}
	err := c.fields("Answer", answer, "Reason", e.GetReason(), "Written at", e.GetAt(), "Rate", rate, "Caller", caller, "Unit", unit)
	if err != nil || len(e.GetConsidered()) == 0 {
		return err
	}
	fmt.Fprintln(c.stdout)
	rows := [][]string{{"GRANT", "EFFECT", "WRITTEN AT", "MATCHES"}}
	for _, g := range e.GetConsidered() {
		matches := "yes"
		if g.GetMisses() != "" {
			matches = "no: " + g.GetMisses()
		}
		rows = append(rows, []string{strconv.Itoa(int(g.GetGrant())), g.GetEffect(), g.GetAt(), matches})
	}
	return c.table(rows)
}
