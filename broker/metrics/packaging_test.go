package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPackaging: alerts and dashboard ask for metrics that there are.
func TestPackaging(t *testing.T) {
	m := busy()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, family := range families {
		known[family.GetName()] = true
	}
	dashboard, err := os.ReadFile("../../packaging/grafana/kmsbroker.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(dashboard) {
		t.Error("the dashboard is not JSON")
	}
	rules, err := os.ReadFile("../../packaging/prometheus/kmsbroker.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	for _, name := range regexp.MustCompile(`\b(?:kmsbroker|go)_[a-z0-9_]+`).FindAllString(string(dashboard)+string(rules), -1) {
		name = strings.TrimSuffix(name, "_bucket")
		if asked[name] = true; !known[name] {
			t.Errorf("there is no metric %s", name)
		}
	}
	if len(asked) < 20 {
		t.Errorf("only %d metrics are asked for", len(asked))
	}
}
