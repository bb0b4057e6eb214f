package main

import (
	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) backendLogin() *cobra.Command {
	return &cobra.Command{
		Use: "login NAME", Args: cobra.ExactArgs(1),
		Short: "Enter the PIN of a backend and log in",
		Long: `Enter the PIN of a backend whose section says pin = "prompt", and log in. The PIN is asked
for on the terminal without an echo; when standard input is no terminal, its first line is
the PIN. The daemon keeps it in memory, for the logins of later plugin processes, until it
stops or the HSM refuses it. After a refusal no PIN is taken before "backend retry-login":
a second wrong one is a decision and not a slip. Exit status 1 unless the login worked.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				// Nobody types a PIN for a daemon or a backend that is not there.
				if _, err := control.ShowBackend(cmd.Context(), &v1.ShowBackendRequest{Name: args[0]}); err != nil {
					return err
				}
				pin, err := c.knownSecret(cmd.Context(), "PIN of backend "+args[0])
				if err != nil {
					return err
				}
				defer clear(pin)
				b, err := control.LoginBackend(cmd.Context(), &v1.LoginBackendRequest{Name: args[0], Pin: pin})
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.printJSON(b)
				}
				return c.table(backendRows([]*v1.Backend{b}))
			})
		},
	}
}
