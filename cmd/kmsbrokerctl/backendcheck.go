package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/internal/build"
)

func (c *ctl) backendCheck() *cobra.Command {
	req := &v1.CheckBackendRequest{}
	var report string
	cmd := &cobra.Command{
		Use: "check NAME", Args: cobra.ExactArgs(1),
		Short: "Run the conformance suite against a backend",
		Long: `Run the conformance suite against a backend, with plugin processes of its own. It is
safe on a partition in production: it makes and removes keys of its own only. With -o json
or --report the report can be kept as evidence: it names the device, the plugin by path and
SHA-256, the programs with their versions, the time, and for each check what was seen and
the device's own code. A check that cannot be made from here is reported as not run, with
the reason. Exit status 1 unless the backend passed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name, req.Client = args[0], "kmsbrokerctl "+build.Version()
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				found, err := c.followCheck(cmd, control, req)
				if err != nil {
					return err
				}
				if report != "" {
					if err := c.write(report, found.GetJson()); err != nil {
						return err
					}
				}
				if c.output == "json" {
					err = c.writeJSON(found.GetJson())
				} else {
					_, err = io.WriteString(c.stdout, found.GetText())
				}
				if err == nil && !found.GetPassed() {
					return fmt.Errorf("backend %s does not conform", args[0])
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&req.Destructive, "destructive", false, "also try one wrong PIN, which counts against the role")
	cmd.Flags().StringVar(&report, "report", "", "file to write the JSON report to")
	return cmd
}

// followCheck shows on a terminal which check is behind, and returns the report
// that ends the stream.
func (c *ctl) followCheck(cmd *cobra.Command, control v1.ControlClient, req *v1.CheckBackendRequest) (*v1.CheckEvent_Report, error) {
	stream, err := control.CheckBackend(cmd.Context(), req)
	if err != nil {
		return nil, err
	}
	live := isTerminal(c.stderr)
	for {
		event, err := stream.Recv()
		if live {
			fmt.Fprint(c.stderr, "\r\x1b[K")
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, errors.New("kmsbrokerd ended the check without a report")
		case err != nil:
			return nil, err
		case event.GetReport() != nil:
			return event.GetReport(), nil
		}
		if live {
			title, _, _ := strings.Cut(event.GetResult(), "\n")
			fmt.Fprint(c.stderr, printable(title))
		}
	}
}
