package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Tell who you are to the daemon, and what you may do", Args: cobra.NoArgs,
		Long: `Tell who the caller is in the eyes of the daemon, which is to whom a grant would have to be, and with which keys
it may do what. For an application, run it as its user and in its unit.`,
		Example: `  systemd-run --pipe --uid=www-data --unit=web.service kmsbrokerctl whoami`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.application(func(app *client.Client) error {
				me, err := app.WhoAmI(cmd.Context())
				if err != nil {
					return err
				}
				keys, err := app.ListKeys(cmd.Context())
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.writeFields(identityFields(me, keys))
				}
				return c.printIdentity(me, keys)
			})
		},
	}
}

func (c *ctl) printIdentity(me *client.Identity, keys []client.Key) error {
	groups := make([]string, len(me.Groups))
	for i, gid := range me.Groups {
		groups[i] = fmt.Sprint(gid)
	}
	unit := me.Unit
	if me.UnitUnknown != "" {
		unit = "unknown: " + me.UnitUnknown
	}
	err := c.fields("User", fmt.Sprintf("%d %s", me.UID, me.User), "Group", fmt.Sprint(me.GID),
		"Supplementary groups", strings.Join(groups, " "), "Unit", unit)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		_, err := fmt.Fprintln(c.stdout, "\nNo grant lets you do anything with a key that there is.")
		return err
	}
	rows := [][]string{{"KEY", "REGIONS", "OPERATION", "WITH CONTEXT"}}
	for _, key := range keys {
		for _, operation := range key.Operations {
			rows = append(rows, []string{key.Name, strings.Join(key.Regions, " "), operation.Name, contextText(operation.RequiredContext)})
		}
	}
	fmt.Fprintln(c.stdout)
	return c.table(rows)
}

// contextText is an encryption context as --context takes it.
func contextText(entries map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		list = append(list, name+"="+entries[name])
	}
	return orDash(strings.Join(list, " "))
}

func identityFields(me *client.Identity, keys []client.Key) map[string]any {
	list := make([]map[string]any, len(keys))
	for i, key := range keys {
		operations := make([]map[string]any, len(key.Operations))
		for j, operation := range key.Operations {
			required := operation.RequiredContext
			if required == nil {
				required = map[string]string{}
			}
			operations[j] = map[string]any{"name": operation.Name, "required_context": required}
		}
		list[i] = map[string]any{"name": key.Name, "region": key.Region, "regions": key.Regions, "operations": operations}
	}
	groups := me.Groups
	if groups == nil {
		groups = []uint32{}
	}
	return map[string]any{
		"uid": me.UID, "user": me.User, "gid": me.GID, "groups": groups,
		"unit": me.Unit, "unit_unknown": me.UnitUnknown, "keys": list,
	}
}
