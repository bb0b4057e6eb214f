package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how the daemon is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				s, err := control.Status(cmd.Context(), &v1.StatusRequest{})
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.printJSON(s)
				}
				return c.showStatus(s)
			})
		},
	}
}

func (c *ctl) showStatus(s *v1.StatusResponse) error {
	endpoint := s.GetEndpoint().GetUrl()
	if !s.GetEndpoint().GetGenuine() {
		endpoint += "  (FOREIGN: not verified TLS to Alibaba Cloud)"
	}
	err := c.fields(
		"Version", s.GetVersion(), "Started", timeText(s.GetStartedAt(), ""),
		"Region", s.GetEndpoint().GetRegion(), "Endpoint", endpoint,
		"Keys", strconv.Itoa(int(s.GetKeys())),
		"Audit records", strconv.FormatUint(s.GetAudit().GetRecords(), 10), "Audit head", s.GetAudit().GetHead(),
		"Audit error", s.GetAudit().GetError())
	if err != nil {
		return err
	}
	if len(s.GetBackends()) > 0 {
		fmt.Fprintln(c.stdout)
		if err := c.table(backendRows(s.GetBackends())); err != nil {
			return err
		}
	}
	for _, imp := range s.GetUnfinished() {
		fmt.Fprintf(c.stdout, "\nunfinished import of %s since %s, step %s, CMK %s\n",
			imp.GetName(), timeText(imp.GetStartedAt(), ""), imp.GetLastStep(), orDash(imp.GetKeyId()))
	}
	return nil
}
