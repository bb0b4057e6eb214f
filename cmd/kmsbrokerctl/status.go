package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker/audit"
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
		"Audit records", strconv.FormatUint(s.GetAudit().GetRecords(), 10), "Audit head", auditHead(s.GetAudit()),
		"Audit error", s.GetAudit().GetError(), "Evidence signed by", s.GetEvidenceFingerprint(),
		"Data keys", dataKeysText(s.GetDataKeys()))
	if err != nil {
		return err
	}
	if len(s.GetBackends()) > 0 {
		fmt.Fprintln(c.stdout)
		if err := c.table(backendRows(s.GetBackends())); err != nil {
			return err
		}
	}
	if len(s.GetProxy()) > 0 {
		fmt.Fprintln(c.stdout)
		if err := c.table(proxyRows(s.GetProxy())); err != nil {
			return err
		}
	}
	if rows := expiryRows(s.GetExpiring(), time.Now()); len(rows) > 1 {
		fmt.Fprintln(c.stdout)
		if err := c.table(rows); err != nil {
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

// proxyRows tell how PKCS#11 clients share the tokens. Sessions are those of the token: of
// so many that there may be, so many are lent and parked.
func proxyRows(tokens []*v1.StatusResponse_Proxy) [][]string {
	rows := [][]string{{"PKCS#11", "CLIENTS", "THEIR SESSIONS", "SESSIONS", "LENT", "PARKED", "WAITING", "LATE", "LOST"}}
	for _, p := range tokens {
		rows = append(rows, []string{p.GetBackend(), number(p.GetClients()), number(p.GetClientSessions()),
			fmt.Sprintf("%d of %d", p.GetLent()+p.GetParked()+p.GetIdle(), p.GetMost()), number(p.GetLent()), number(p.GetParked()),
			number(p.GetWaiting()), number(p.GetLate()), number(p.GetLost())})
	}
	return rows
}

func number[N uint32 | uint64](n N) string { return strconv.FormatUint(uint64(n), 10) }

// dataKeysText tells how long envelopes open under a CMK that was disabled.
func dataKeysText(d *v1.StatusResponse_DataKeys) string {
	text := fmt.Sprintf("%d cached; a CMK disabled elsewhere is used for %v at the most", d.GetCached(), d.GetRevocationLag().AsDuration())
	if offline := d.GetOffline().AsDuration(); offline > 0 {
		text += fmt.Sprintf(", and %v more while KMS cannot be reached", offline)
	}
	return text
}

const day = 24 * time.Hour

// soon is how long before its material expires a key is shown.
const soon = 30 * day

// expiryRows lists the material that expires soon or could not be renewed.
func expiryRows(expiring []*v1.StatusResponse_Expiry, now time.Time) [][]string {
	rows := [][]string{{"KEY", "REGION", "CMK", "MATERIAL EXPIRES", "DAYS", "RENEWAL"}}
	for _, e := range expiring {
		left := e.GetExpiresAt().AsTime().Sub(now)
		if left > soon && e.GetRenewalError() == "" {
			continue
		}
		rows = append(rows, []string{e.GetKey(), e.GetRegion(), e.GetKeyId(), timeText(e.GetExpiresAt(), ""),
			strconv.Itoa(int(math.Floor(left.Hours() / day.Hours()))), renewalText(e)})
	}
	return rows
}

func renewalText(e *v1.StatusResponse_Expiry) string {
	switch {
	case e.GetRenewalError() != "":
		return fmt.Sprintf("failed %s: %s", timeText(e.GetRenewedAt(), ""), e.GetRenewalError())
	case e.GetRenewAhead() == nil:
		return "none: kmsbrokerctl key reimport " + e.GetKey()
	case e.GetRenewedAt() != nil:
		return "done " + timeText(e.GetRenewedAt(), "")
	default:
		due := e.GetExpiresAt().AsTime().Add(-e.GetRenewAhead().AsDuration())
		return "due " + timeText(timestamppb.New(due), "")
	}
}

// auditHead is what "audit verify --anchor" takes.
func auditHead(a *v1.StatusResponse_Audit) string {
	return audit.Head{Seq: a.GetRecords(), Hash: a.GetHead()}.String()
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
