package conformance

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteText writes the report for people: what was checked, a line for each
// check, and the verdict.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "kmsbroker backend conformance, suite %s\n\n", r.Suite)
	r.writeHead(&b)
	b.WriteString("\n")
	for _, result := range r.Results {
		b.WriteString(result.String())
	}
	b.WriteString("\n")
	r.writeEnd(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) writeHead(b *strings.Builder) {
	line := func(name, value string) { fmt.Fprintf(b, "%-10s %s\n", name, cmp.Or(value, "-")) }
	if len(r.RunBy) > 0 {
		line("run by", strings.Join(r.RunBy, ", "))
	}
	if r.Plugin != "" {
		line("plugin", r.Plugin)
	}
	if r.SHA256 != "" {
		line("SHA-256", r.SHA256)
	}
	if d := r.Device; d != nil {
		line("device", strings.TrimSpace(d.Manufacturer+" "+d.Model))
		line("serial", d.Serial)
		line("label", d.Label)
		line("firmware", d.Firmware)
		line("library", d.Library)
		line("role", string(d.Role))
		line("FIPS mode", d.fips())
		var algorithms []string
		for _, a := range d.WrappingAlgorithms {
			algorithms = append(algorithms, string(a))
		}
		line("wraps with", strings.Join(algorithms, ", "))
		name := "policies"
		for _, p := range d.Policies {
			fmt.Fprintf(b, "%-10s %-3d %s: %d\n", name, p.Number, p.Name, p.Value)
			name = ""
		}
	}
	line("started", r.Started.Format(time.RFC3339))
	line("took", r.Ended.Sub(r.Started).Round(time.Millisecond).String())
}

func (d *Device) fips() string {
	switch {
	case d.FIPS == nil:
		return "not told"
	case *d.FIPS:
		return "on"
	default:
		return "off"
	}
}

// String is the result as one line of text, with a second one for its detail.
func (r Result) String() string {
	line := fmt.Sprintf("%-13s  %s  %s", r.Status, r.ID, r.Title)
	if r.Code != "" {
		line += " [" + r.Code + "]"
	}
	line += "\n"
	if r.Detail != "" {
		line += strings.Repeat(" ", 21) + r.Detail + "\n"
	}
	return line
}

func (r *Report) writeEnd(b *strings.Builder) {
	fmt.Fprintf(b, "%d passed, %d failed, %d not supported, %d not run\n",
		r.Totals.Passed, r.Totals.Failed, r.Totals.NotSupported, r.Totals.NotRun)
	if n := len(r.Earlier); n > 0 {
		fmt.Fprintf(b, "%d keys with the label of this suite were on the token before; they were not touched:\n", n)
		for _, id := range r.Earlier {
			fmt.Fprintf(b, "  %s\n", id)
		}
	}
	if n := len(r.LeftBehind); n > 0 {
		fmt.Fprintf(b, "%d keys of this run may still be on the token; destroy them with the vendor's tool:\n", n)
		for _, id := range r.LeftBehind {
			fmt.Fprintf(b, "  %s\n", id)
		}
	}
	fmt.Fprintf(b, "verdict: %s\n", r.Verdict)
}
