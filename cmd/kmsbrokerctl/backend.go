package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) backendCommand() *cobra.Command {
	return noun("backend", "Look at the HSM backends", c.backendList(), c.backendShow(), c.backendKeys(), c.backendCheck(), c.backendLogin(), c.backendRetryLogin(), c.backendInitToken())
}

func (c *ctl) backendList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the backends", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.ListBackends(cmd.Context(), &v1.ListBackendsRequest{})
				if err != nil {
					return err
				}
				if c.output == "json" {
					return printJSONList(c, answer.GetBackends())
				}
				return c.table(backendRows(answer.GetBackends()))
			})
		},
	}
}

func backendRows(backends []*v1.Backend) [][]string {
	rows := [][]string{{"NAME", "STATE", "PLUGIN", "MODEL", "TOKEN", "SERIAL", "RESTARTS", "ERROR"}}
	for _, b := range backends {
		rows = append(rows, []string{b.GetName(), b.GetState(), b.GetPlugin(), orDash(b.GetToken().GetModel()),
			orDash(b.GetToken().GetLabel()), orDash(b.GetToken().GetSerial()),
			strconv.FormatUint(uint64(b.GetRestarts()), 10), orDash(b.GetError())})
	}
	return rows
}

func (c *ctl) backendShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a backend and what its token can do", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				b, err := control.ShowBackend(cmd.Context(), &v1.ShowBackendRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.printJSON(b)
				}
				t := b.GetToken()
				fips := "not told"
				if t != nil && t.Fips != nil {
					fips = strconv.FormatBool(t.GetFips())
				}
				err = c.fields("Name", b.GetName(), "State", b.GetState(), "Error", b.GetError(), "Plugin", b.GetPlugin(),
					"Process", strconv.Itoa(int(b.GetPid())), "Restarts", strconv.FormatUint(uint64(b.GetRestarts()), 10),
					"Foreign endpoint", allowed(b.GetAllowForeignEndpoint()),
					"Manufacturer", t.GetManufacturer(), "Model", t.GetModel(), "Serial", t.GetSerial(), "Label", t.GetLabel(),
					"Firmware", t.GetFirmware(), "Library", t.GetLibrary(), "Role", t.GetRole(), "FIPS mode", fips,
					"Wrapping algorithms", strings.Join(t.GetWrappingAlgorithms(), ", "))
				if err != nil || len(t.GetPolicies()) == 0 {
					return err
				}
				fmt.Fprintln(c.stdout)
				rows := [][]string{{"POLICY", "NAME", "VALUE"}}
				for _, p := range t.GetPolicies() {
					rows = append(rows, []string{strconv.Itoa(int(p.GetNumber())), p.GetName(), strconv.Itoa(int(p.GetValue()))})
				}
				return c.table(rows)
			})
		},
	}
}

// vendorColumns are the vendor's attributes that some key has.
func vendorColumns(keys []*v1.BackendKey) []string {
	var names []string
	for _, k := range keys {
		for name := range k.GetVendor() {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return sorted(names)
}

func allowed(b bool) string {
	if b {
		return "ALLOWED: keys may be imported into something other than Alibaba Cloud"
	}
	return "refused"
}

func (c *ctl) backendRetryLogin() *cobra.Command {
	return &cobra.Command{
		Use: "retry-login NAME", Args: cobra.ExactArgs(1),
		Short: "Allow one more login, after the PIN was corrected",
		Long: `A refused PIN is never tried again by itself, because ten wrong ones lock or wipe an
HSM. Correct the PIN file, or have the HSM's security officer unlock the role, and then
allow one more attempt with this command. Attempts belong to the token: what another
backend has tried on the same one no longer holds this one up, and stays refused to that
other. Where the PIN is entered, "backend login" comes after this.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				b, err := control.RetryLogin(cmd.Context(), &v1.RetryLoginRequest{Name: args[0]})
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

func (c *ctl) backendKeys() *cobra.Command {
	return &cobra.Command{
		Use: "keys NAME", Short: "List the secret keys in a backend's token", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.ListBackendKeys(cmd.Context(), &v1.ListBackendKeysRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if c.output == "json" {
					return printJSONList(c, answer.GetKeys())
				}
				vendor := vendorColumns(answer.GetKeys())
				rows := [][]string{append([]string{"ID", "LABEL", "TYPE", "BITS", "SENSITIVE", "EXTRACTABLE", "LOCAL", "KEY"}, vendor...)}
				for _, k := range answer.GetKeys() {
					row := []string{k.GetId(), orDash(k.GetLabel()), k.GetType(), strconv.Itoa(int(k.GetBits())),
						strconv.FormatBool(k.GetSensitive()), strconv.FormatBool(k.GetExtractable()),
						strconv.FormatBool(k.GetLocal()), orDash(k.GetKey())}
					for _, name := range vendor {
						row = append(row, orDash(k.GetVendor()[name]))
					}
					rows = append(rows, row)
				}
				return c.table(rows)
			})
		},
	}
}
