package stage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Proxied is what the metrics tell of PKCS#11 clients, without the common beginning of
// the names and the backend: `clients`, `sessions lent`.
func (s *Stage) Proxied() map[string]float64 {
	s.t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(s.Metrics()) {
		rest, ok := strings.CutPrefix(line, "kmsbroker_pkcs11_")
		if !ok {
			continue
		}
		name, number, _ := strings.Cut(strings.TrimSpace(rest), "} ")
		name, labels, _ := strings.Cut(name, "{")
		for label := range strings.SplitSeq(labels, ",") {
			if which, value, _ := strings.Cut(label, "="); which != "backend" {
				name += " " + strings.Trim(value, `"`)
			}
		}
		v, err := strconv.ParseFloat(number, 64)
		if err != nil {
			s.t.Fatalf("metrics: %s", line)
		}
		all[name] = v
	}
	return all
}

// Unused reports that nothing is lent to PKCS#11 clients any more, who are gone.
func (s *Stage) Unused() bool {
	p := s.Proxied()
	return p["clients"]+p["client_sessions"]+p["waiting"]+p["sessions lent"]+p["sessions parked"] == 0
}

// Plugin is the process of the daemon's plugin, 0 while there is none.
func (d *Daemon) Plugin() int {
	if all := children(d.PID()); len(all) > 0 {
		return all[0]
	}
	return 0
}

// children are the processes that a process has started.
func children(pid int) (all []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that ended
		}
		for child := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(child); err == nil {
				all = append(all, n)
			}
		}
	}
	return slices.Compact(all)
}

// Descriptors is how many the daemon has open.
func (d *Daemon) Descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
