package system

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

var writeGolden = flag.String("write-golden", "", "write the state of this release into a new directory of testdata/golden")

// golden is what a release left: a backup of its state, the audit trail's head then, and
// what it listed.
type golden struct{ dir string }

func (g golden) path(name string) string { return filepath.Join("testdata/golden", g.dir, name) }

func (g golden) read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(g.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// listed is what stays the same of a list of keys.
func listed(t *testing.T, s *stage.Stage) string {
	t.Helper()
	var keys []stage.Key
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "list"), &keys)
	raw, err := json.MarshalIndent(keys, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw) + "\n"
}

// TestWriteGolden makes a state with all that a release can leave. It is run once for
// each release: -write-golden v2.
func TestWriteGolden(t *testing.T) {
	if *writeGolden == "" {
		return
	}
	g := golden{*writeGolden}
	if err := os.Mkdir(filepath.Join("testdata/golden", g.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1", "--region", stage.Region, "--region", stage.OtherRegion, "--alias", "alias/app-1", "--expires", "90d", "--renew", "14d")
	s.Must(s.Ctl(s.Control(), "key", "rotate", "app-1"), nil)
	s.Import("app-sealed")
	s.Must(s.Ctl(s.Control(), "key", "seal", "app-sealed", "--yes"), nil)
	s.Must(s.Ctl(s.Control(), "app", "issue", "web", "--out", s.Path("web.toml")), nil)
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil)
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--envelope", "--key", "app-1"), nil)
	daemon.Stop() // which ends a segment
	s.Start()
	made := s.Ctl(s.Control(), "backup", "--config", s.Config(), "--out", s.Path("backup.kmsb"))
	s.Must(made, nil)
	head := strings.TrimSpace(made.Stdout[strings.Index(made.Stdout, "Audit head:")+len("Audit head:"):])
	for name, content := range map[string]string{"backup.kmsb": s.Read("backup.kmsb"), "head": head + "\n", "keys.json": listed(t, s)} {
		if err := os.WriteFile(g.path(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGolden: this release goes on with what every one before it left.
func TestGolden(t *testing.T) {
	entries, err := os.ReadDir("testdata/golden")
	if err != nil || len(entries) == 0 {
		t.Fatalf("no golden states: %v", err)
	}
	for _, entry := range entries {
		g := golden{entry.Name()}
		t.Run(g.dir, func(t *testing.T) {
			s := stage.New(t, stage.Options{})
			s.Must(s.Ctl("", "restore", "--in", g.path("backup.kmsb"), "--state-dir", s.Path("state"), "--owner", ""), nil)
			s.Must(s.Ctl("", "audit", "verify", "--dir", s.Path("state/audit"), "--anchor", strings.TrimSpace(g.read(t, "head"))), nil)
			s.Start()
			if got, want := listed(t, s), g.read(t, "keys.json"); got != want {
				t.Errorf("the keys are\n%s\nwant\n%s", got, want)
			}
			var apps []struct {
				App string `json:"app"`
			}
			s.Must(s.Ctl(s.Control(), "-o", "json", "app", "list"), &apps)
			if len(apps) != 1 || apps[0].App != "web" {
				t.Errorf("the access keys are %+v", apps)
			}
			var evidence map[string]any
			s.Must(s.Ctl(s.Control(), "-o", "json", "key", "evidence", "app-1", "--out", s.Path("evidence.json")), nil)
			if err := json.Unmarshal([]byte(s.Read("evidence.json")), &evidence); err != nil || len(evidence) == 0 {
				t.Errorf("evidence: %v, %v", evidence, err)
			}
			if s.Import("app-2").State != "Enabled" {
				t.Error("a new key does not work beside the old ones")
			}
		})
	}
}
