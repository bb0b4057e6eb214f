package main

import (
	"fmt"
	"strconv"
	"strings"

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
		"Other regions", otherRegions(s), "Keys", strconv.Itoa(int(s.GetKeys())),
		"Audit records", strconv.FormatUint(s.GetAudit().GetRecords(), 10), "Audit head", s.GetAudit().GetHead(),
		"Audit error", s.GetAudit().GetError(), "Evidence signed by", s.GetEvidenceFingerprint())
	if err != nil {
		return err
	}
	if len(s.GetBackends()) > 0 {
		fmt.Fprintln(c.stdout)
		if err := c.table(backendRows(s.GetBackends())); err != nil {
			return err
		}
	}
	for _, e := range append([]*v1.StatusResponse_Endpoint{s.GetEndpoint()}, s.GetOtherRegions()...) {
		for _, a := range e.GetAddresses() {
			if a.GetState() != "closed" {
				fmt.Fprintf(c.stdout, "\nKMS at %s is left alone (circuit %s) since it failed: %s\n", printable(a.GetName()), a.GetState(), printable(a.GetLastError()))
			}
		}
	}
	for _, imp := range s.GetUnfinished() {
		fmt.Fprintf(c.stdout, "\nunfinished %s of %s since %s, step %s, CMK %s\n",
			imp.GetKind(), imp.GetName(), timeText(imp.GetStartedAt(), ""), imp.GetLastStep(), orDash(imp.GetKeyId()))
	}
	return nil
}

func otherRegions(s *v1.StatusResponse) string {
	var regions []string
	for _, e := range s.GetOtherRegions() {
		text := e.GetRegion() + " at " + e.GetUrl()
		if !e.GetGenuine() {
			text += " (FOREIGN)"
		}
		regions = append(regions, text)
	}
	return strings.Join(regions, ", ")
}
