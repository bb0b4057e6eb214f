package main

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) policyExplain() *cobra.Command {
	req := &v1.ExplainPolicyRequest{}
	var entries []string
	var object objectFlags
	cmd := &cobra.Command{
		Use: "explain --user USER|--app APP --key NAME|--token TOKEN --op OPERATION", Short: "Tell what a caller may do, and which grant decides", Args: cobra.NoArgs,
		Long: `Tell what a caller may do, and which grant decides. The exit status says that there is an answer, not which.
The caller is what a process of the user would be, in the unit that is named or in none; or an application that
is known by an access key. With --token it is about an object of an HSM token and the [[pkcs11]] grants: about the one
with that --label and --id, or without them one that has neither.`,
		Example: `  kmsbrokerctl policy explain --user www-data --unit web.service --key payments --op decrypt --context tenant=acme
  kmsbrokerctl policy explain --user www-data --token luna --label tls-web --op sign`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := checkExplain(cmd, req, object.token != ""); err != nil {
				return err
			}
			if req.EncryptionContext, err = parseContext(entries); err != nil {
				return err
			}
			if req.Object, err = object.message(); err != nil {
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
	flags.StringVar(&req.Key, "key", "", "name of the key")
	flags.StringVar(&req.Operation, "op", "", "operation, as in a grant: encrypt, decrypt, generate-data-key or generate-data-key-without-plaintext with a key, sign and others with an object (required)")
	flags.StringArrayVar(&entries, "context", nil, "entry of the encryption context, NAME=VALUE; may be repeated")
	object.define(cmd)
	return cmd
}

func checkExplain(cmd *cobra.Command, req *v1.ExplainPolicyRequest, object bool) error {
	switch {
	case req.GetUser() == "" && req.GetApp() == "":
		return usagef("--user or --app is missing: who calls?")
	case req.GetApp() != "" && (req.GetUser() != "" || req.GetUnit() != "" || len(req.GetGroups()) > 0):
		return usagef("an application has no user, groups or unit: --app excludes --user, --group and --unit")
	case object && (req.GetKey() != "" || cmd.Flags().Changed("context") || req.GetApp() != ""):
		return usagef("--token is about an object: it excludes --key, --context and --app")
	case !object && (cmd.Flags().Changed("label") || cmd.Flags().Changed("id")):
		return usagef("--token is missing: on which token is the object?")
	case !object && req.GetKey() == "":
		return usagef("--key or --token is missing: with which key, or with an object of which token?")
	case req.GetOperation() == "":
		return usagef("--op is missing: encrypt, decrypt or another operation that grants can name")
	}
	return nil
}

// objectFlags name an object of a token.
type objectFlags struct{ token, label, id string }

func (o *objectFlags) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.token, "token", "", "token of the object, which is the name of a backend, instead of a key")
	flags.StringVar(&o.label, "label", "", "label of the object (default: none)")
	flags.StringVar(&o.id, "id", "", "id of the object in hexadecimal digits (default: none)")
}

// message returns nil when no object is named.
func (o *objectFlags) message() (*v1.ExplainPolicyRequest_Object, error) {
	if o.token == "" {
		return nil, nil //nolint:nilnil // documented
	}
	id, err := hex.DecodeString(o.id)
	if err != nil {
		return nil, usagef("--id: %q is not of hexadecimal digits, two for each byte", o.id)
	}
	return &v1.ExplainPolicyRequest_Object{Token: o.token, Label: o.label, Id: id}, nil
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
	login := ""
	if e.GetPin() {
		login = "with the application PIN of the grant"
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
	err := c.fields("Answer", answer, "Reason", e.GetReason(), "Written at", e.GetAt(), "Rate", rate, "Login", login, "Caller", caller, "Unit", unit)
	if err != nil || len(e.GetConsidered()) == 0 {
		return err
	}
	fmt.Fprintln(c.stdout)
	rows := [][]string{{"GRANT", "EFFECT", "WRITTEN AT", "MATCHES"}}
	for _, g := range e.GetConsidered() {
		matches := "yes"
		if g.GetMisses() != "" {
			matches = "no: " + g.GetMisses()
		} else if g.GetPin() {
			matches = "yes, with its PIN"
		}
		rows = append(rows, []string{strconv.Itoa(int(g.GetGrant())), g.GetEffect(), g.GetAt(), matches})
	}
	return c.table(rows)
}
