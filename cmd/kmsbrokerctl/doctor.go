package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/internal/build"
	"github.com/kmsbroker/kmsbroker/internal/doctor"
)

const defaultConfig = "/etc/kmsbroker/kmsbrokerd.toml"

func (c *ctl) doctorCommand() *cobra.Command {
	var config string
	var all bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong, and say what to do next", Args: cobra.NoArgs,
		Long: `Look at the configuration, the files that it names, the network, the daemon, the HSM backends and the keys, and say of
each finding what to do next. Nothing is changed, no PIN is tried, and no secret is shown. Run it as root, which sees most.
The exit status is 1 when there is a problem.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := doctor.Examine(cmd.Context(), doctor.Options{Config: config, Control: c.socket, Version: build.Version()})
			if err := c.showFindings(findings, all); err != nil {
				return err
			}
			problems := 0
			for _, f := range findings {
				if f.Result == doctor.Problem {
					problems++
				}
			}
			if problems > 0 {
				return errors.New(counted(problems, "problem"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", defaultConfig, "configuration of kmsbrokerd")
	cmd.Flags().BoolVar(&all, "all", false, "show also what is in order")
	return cmd
}

func (c *ctl) showFindings(findings []doctor.Finding, all bool) error {
	if c.output == "json" {
		raw, err := json.Marshal(findings)
		if err != nil {
			return err
		}
		return c.writeJSON(raw)
	}
	fine := 0
	for _, f := range findings {
		if f.Result == doctor.OK {
			fine++
			if !all {
				continue
			}
		}
		fmt.Fprintf(c.stdout, "%-8s %s: %s\n", f.Result, printable(f.Check), printable(f.Message))
		if f.Next != "" {
			fmt.Fprintf(c.stdout, "         next: %s\n", printable(f.Next))
		}
	}
	_, err := fmt.Fprintf(c.stdout, "%s in order\n", counted(fine, "check"))
	return err
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
