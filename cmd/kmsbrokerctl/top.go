package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) topCommand() *cobra.Command {
	var socket string
	var every time.Duration
	cmd := &cobra.Command{
		Use: "top", Short: "Show what the daemon is doing, again and again", Args: cobra.NoArgs,
		Long: `Show calls a second and their times by door and operation, calls to KMS, backends and what is wrong, and do it again every
few seconds until Ctrl-C. Without a terminal it is shown once.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.output == "json" {
				return usagef("-o json: the metrics socket has the numbers, docs/metrics.md")
			}
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				return c.top(cmd.Context(), control, socket, every)
			})
		},
	}
	cmd.Flags().StringVar(&socket, "metrics", "/run/kmsbroker/metrics.sock", "metrics socket of the daemon")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "how often")
	return cmd
}

func (c *ctl) top(ctx context.Context, control v1.ControlClient, socket string, every time.Duration) error {
	if every < 100*time.Millisecond {
		return usagef("--every must be 100ms at least, not %v", every)
	}
	before, err := readMetrics(ctx, socket)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // told to stop
		case <-ticker.C:
		}
		now, err := readMetrics(ctx, socket)
		if err != nil {
			return err
		}
		status, err := control.Status(ctx, &v1.StatusRequest{})
		if err != nil {
			return err
		}
		var frame bytes.Buffer
		shown := &ctl{stdout: &frame}
		if err := shown.frame(status, before, now); err != nil {
			return err
		}
		if !isTerminal(c.stdout) {
			_, err := frame.WriteTo(c.stdout)
			return err
		}
		fmt.Fprint(c.stdout, "\x1b[H\x1b[2J") // home, and all of it cleared
		if _, err := frame.WriteTo(c.stdout); err != nil {
			return err
		}
		before = now
	}
}

// sample is what the metrics were at a time.
type sample struct {
	at       time.Time
	families map[string]*dto.MetricFamily
}

func readMetrics(ctx context.Context, socket string) (*sample, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return &sample{time.Now(), families}, nil
}

// frame writes one picture.
func (c *ctl) frame(s *v1.StatusResponse, before, now *sample) error {
	fmt.Fprintf(c.stdout, "kmsbrokerd %s, up %v, %d keys, %d audit records\n", printable(s.GetVersion()),
		now.at.Sub(s.GetStartedAt().AsTime()).Round(time.Second), s.GetKeys(), s.GetAudit().GetRecords())
	if s.GetAudit().GetError() != "" {
		fmt.Fprintf(c.stdout, "AUDIT: %s\n", printable(s.GetAudit().GetError()))
	}
	for _, b := range s.GetBackends() {
		fmt.Fprintf(c.stdout, "backend %s: %s %s\n", printable(b.GetName()), printable(b.GetState()), printable(b.GetError()))
	}
	for _, p := range s.GetProxy() {
		fmt.Fprintf(c.stdout, "PKCS#11 %s: %d clients, sessions: %d lent, %d parked, %d may be; %d calls wait\n", printable(p.GetBackend()),
			p.GetClients(), p.GetLent(), p.GetParked(), p.GetMost(), p.GetWaiting())
	}
	for _, e := range append([]*v1.StatusResponse_Endpoint{s.GetEndpoint()}, s.GetOtherRegions()...) {
		for _, a := range e.GetAddresses() {
			fmt.Fprintf(c.stdout, "KMS %s: circuit %s %s\n", printable(a.GetName()), printable(a.GetState()), printable(a.GetLastError()))
		}
	}
	fmt.Fprintln(c.stdout)
	calls := [][]string{{"DOOR", "OPERATION", "OUTCOME", "CALLS/S", "MEAN"}}
	err := c.table(append(calls, rates(before, now, "kmsbroker_call_duration_seconds", "door", "operation", "outcome")...))
	if err != nil {
		return err
	}
	fmt.Fprintln(c.stdout)
	attempts := [][]string{{"REGION", "KMS OPERATION", "ENDPOINT", "REQUESTS/S", "MEAN"}}
	return c.table(append(attempts, rates(before, now, "kmsbroker_kms_attempt_duration_seconds", "region", "operation", "endpoint")...))
}

// rates are of the series of a histogram that have grown: by their labels, with how
// many there were a second and how long they took on average.
func rates(before, now *sample, name string, labels ...string) [][]string {
	old := map[string]*dto.Histogram{}
	for _, m := range before.families[name].GetMetric() {
		old[strings.Join(values(m, labels), "\x00")] = m.GetHistogram()
	}
	seconds := now.at.Sub(before.at).Seconds()
	var rows [][]string
	for _, m := range now.families[name].GetMetric() {
		row := values(m, labels)
		was, is := old[strings.Join(row, "\x00")], m.GetHistogram()
		n := float64(is.GetSampleCount() - was.GetSampleCount())
		if n <= 0 {
			continue
		}
		mean := time.Duration((is.GetSampleSum() - was.GetSampleSum()) / n * float64(time.Second))
		rows = append(rows, append(row, fmt.Sprintf("%.1f", n/seconds), mean.Round(10*time.Microsecond).String()))
	}
	slices.SortFunc(rows, slices.Compare[[]string])
	return rows
}

func values(m *dto.Metric, labels []string) []string {
	found := make([]string, len(labels))
	for _, pair := range m.GetLabel() {
		if i := slices.Index(labels, pair.GetName()); i >= 0 {
			found[i] = pair.GetValue()
		}
	}
	return found
}
