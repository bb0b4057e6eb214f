package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker/pin"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) policyCommand() *cobra.Command {
	return noun("policy", "Reload the grants, and ask what they say", c.policyExplain(), c.policyReload(), c.policyHashPIN())
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
				return c.fields("Grants", strconv.Itoa(int(answer.GetGrants())), "PKCS#11 grants", strconv.Itoa(int(answer.GetPkcs11Grants())))
			})
		},
	}
}

func (c *ctl) policyHashPIN() *cobra.Command {
	return &cobra.Command{
		Use: "hash-pin", Short: "Make the hash of an application PIN, for a [[pkcs11]] grant", Args: cobra.NoArgs,
		Long: `Make the hash of an application PIN, for the pin of a [[pkcs11]] grant. The PIN is entered twice on the terminal, or
is the first line of standard input when that is none. It has nothing to do with the PIN of an HSM, and should not be it.`,
		Example: `  kmsbrokerctl policy hash-pin >>grant.toml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			read := c.knownSecret
			if _, ok := c.terminal(); ok {
				read = c.newPIN
			}
			given, err := read(cmd.Context(), "application PIN")
			defer clear(given)
			if err != nil {
				return err
			}
			hash, err := pin.Hash(given)
			if err != nil {
				return usageError{err}
			}
			if c.output == "json" {
				return c.writeJSON(fmt.Appendf(nil, `{"pin": %q}`, hash))
			}
			_, err = fmt.Fprintf(c.stdout, "pin = %q\n", hash)
			return err
		},
	}
}

// newPIN asks twice.
func (c *ctl) newPIN(ctx context.Context, what string) ([]byte, error) {
	return c.newSecret(ctx, what, "")
}
