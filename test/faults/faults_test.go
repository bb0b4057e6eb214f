// Package faults kills the daemon with SIGKILL at every fault point of an import,
// a rotation and a re-import, and looks at what the next daemon makes of it.
package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// scenario is a command that must survive being killed anywhere.
type scenario struct {
	name string
	// prepare brings the stage to where the command starts.
	prepare func(*stage.Stage)
	command []string
	// Afterwards there are so many CMKs and HSM keys.
	cmks, hsmKeys int
	// plan is the command that lists its steps, whose points must be passed; nil for
	// one without a journal.
	plan []string
}

func scenarios() []scenario {
	importKey := []string{"key", "import", "app-1", "--backend", "hsm", "--alias", "alias/app-1"}
	imported := func(s *stage.Stage) { s.Must(s.Ctl(s.Control(), importKey...), nil) }
	journaled := func(name string, prepare func(*stage.Stage), cmks, hsmKeys int, command ...string) scenario {
		return scenario{name, prepare, command, cmks, hsmKeys, append(command, "--dry-run")}
	}
	return []scenario{
		journaled("import", func(*stage.Stage) {}, 1, 1, importKey...),
		journaled("rotate", imported, 2, 2, "key", "rotate", "app-1"),
		journaled("add-region", imported, 2, 1, "key", "add-region", "app-1", stage.OtherRegion),
		{"reimport", imported, []string{"key", "reimport", "app-1"}, 1, 1, nil},
	}
}

func TestKillAtEveryFaultPoint(t *testing.T) {
	program := build(t)
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			points := trace(t, program, sc)
			t.Logf("%d fault points", len(points))
			checkPoints(t, sc, points, planned(t, sc))
			for _, point := range points {
				t.Run(strings.ReplaceAll(point, "#", " pass "), func(t *testing.T) {
					t.Parallel()
					killAt(t, program, sc, point)
				})
			}
		})
	}
}

// build makes the daemon with its fault points.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "kmsbrokerd")
	cmd := exec.Command("go", "build", "-tags", "faults", "-o", program, "./cmd/kmsbrokerd")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with fault points: %v\n%s", err, out)
	}
	return program
}

// start is a stage that the scenario is prepared on, and the command's daemon.
func start(t *testing.T, program string, sc scenario, env ...string) (*stage.Stage, *stage.Daemon) {
	t.Helper()
	s := stage.New(t, stage.Options{})
	before := s.Start()
	sc.prepare(s)
	before.Stop()
	d := s.StartProgram(program, env...)
	if err := d.Wait("backend ready"); err != nil {
		t.Fatal(err)
	}
	return s, d
}

// planned lists the steps that the command would take, without the plan itself,
// which makes nothing and has no journal.
func planned(t *testing.T, sc scenario) []string {
	t.Helper()
	if sc.plan == nil {
		return nil
	}
	s := stage.New(t, stage.Options{})
	d := s.Start()
	defer d.Stop()
	sc.prepare(s)
	var steps []struct{ Name string }
	s.Must(s.Ctl(s.Control(), append([]string{"-o", "json"}, sc.plan...)...), &steps)
	var names []string
	for _, step := range steps {
		if step.Name != "plan" {
			names = append(names, step.Name)
		}
	}
	return names
}

// trace runs the scenario undisturbed and returns the points that it passed. Those
// of the health checks come and go with the clock.
func trace(t *testing.T, program string, sc scenario) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trace")
	s, d := start(t, program, sc, "KMSBROKER_FAULT_TRACE="+file)
	before := lines(t, file)
	s.Must(s.Ctl(s.Control(), sc.command...), nil)
	points := lines(t, file)[len(before):]
	d.Stop()
	return slices.DeleteFunc(points, func(p string) bool { return strings.HasPrefix(p, "hsm/check token/") })
}

func lines(t *testing.T, file string) []string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")[:strings.Count(string(content), "\n")]
}

// checkPoints makes sure that no step of the table and no kind of call lost its
// points.
func checkPoints(t *testing.T, sc scenario, points, steps []string) {
	t.Helper()
	want := []string{"reimport/finish/before", "reimport/finish/after"}
	if sc.plan != nil {
		want = []string{
			"import/open/before", "import/open/after", "import/finish/before", "import/finish/after",
			"kms/CreateKey/before", "kms/CreateKey/after",
		}
	}
	for _, step := range steps {
		for _, where := range []string{"before-begin", "after-begin", "before-end", "after-end"} {
			want = append(want, "import/"+step+"/"+where)
		}
	}
	if slices.Contains(steps, "generate") {
		want = append(want, "hsm/generate HSM key/before", "hsm/generate HSM key/after")
	}
	for _, call := range []string{"kms/GetParametersForImport", "kms/ImportKeyMaterial", "hsm/wrap HSM key"} {
		want = append(want, call+"/before", call+"/after")
	}
	if sc.plan != nil && len(steps) < 6 {
		t.Fatalf("the plan has the steps %v", steps)
	}
	for _, name := range want {
		if !slices.ContainsFunc(points, func(p string) bool { return strings.HasPrefix(p, name+"#") }) {
			t.Errorf("the point %s was not passed", name)
		}
	}
}

// killAt has the daemon die at a point, and its successor finish the command.
func killAt(t *testing.T, program string, sc scenario, point string) {
	s, d := start(t, program, sc, "KMSBROKER_FAULT_KILL="+point)
	if r := s.Ctl(s.Control(), sc.command...); r.Status == 0 && !strings.HasPrefix(point, "import/finish/after") {
		t.Fatalf("the daemon was not killed: %+v", r)
	}
	<-d.Ended()
	known := cmks(t, s)
	if err := s.Start().Wait("backend ready"); err != nil {
		t.Fatal(err)
	}
	if r := s.Ctl(s.Control(), sc.command...); r.Status != 0 && !strings.Contains(r.Stderr, "already") {
		t.Fatalf("the command does not continue: %d\n%s", r.Status, r.Stderr)
	}
	var key stage.Key
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "show", "app-1"), &key)
	after := cmks(t, s)
	extra := rotatedTwice(sc, point)
	if len(after) != sc.cmks+extra || key.State != "Enabled" || !slices.Contains(after, key.KeyID) {
		t.Errorf("CMKs %v after %v, the key is %+v", after, known, key)
	}
	for _, id := range known {
		if !slices.Contains(after, id) {
			t.Errorf("CMK %s of before the kill is gone", id)
		}
	}
	// The token's own store: secret keys, and no wrapping key or anything else.
	if secret, other := s.Objects(); secret != sc.hsmKeys+extra || other != 0 {
		t.Errorf("the token holds %d secret keys and %d other objects", secret, other)
	}
	checkEvidence(t, s)
	s.Must(s.Ctl(s.Control(), "key", "verify", "app-1", "--material"), nil)
	if owner, err := s.Client().DescribeKey(t.Context(), "alias/app-1"); err != nil || owner.KeyID != key.KeyID {
		t.Errorf("the alias is of %+v, %v", owner, err)
	}
}

// rotatedTwice is 1 where the rotation was complete when the daemon died, so that
// the repeated command was a second one.
func rotatedTwice(sc scenario, point string) int {
	if sc.name == "rotate" && strings.HasPrefix(point, "import/finish/after") {
		return 1
	}
	return 0
}

// checkEvidence compares the key's history with the audit trail: every export is in
// both, whichever of them the daemon died after.
func checkEvidence(t *testing.T, s *stage.Stage) {
	t.Helper()
	var file struct {
		Record struct {
			Exports []struct {
				SHA256 string `json:"wrapping_key_sha256"`
			} `json:"exports"`
		} `json:"record"`
	}
	s.Must(s.Ctl(s.Control(), "key", "evidence", "app-1"), &file)
	known := map[string]bool{}
	for _, export := range file.Record.Exports {
		known[export.SHA256] = true
	}
	wraps := 0
	for line := range strings.Lines(s.AuditTrail()) {
		_, sum, found := strings.Cut(line, `"wrapping_key_sha256":"`)
		if !found || !strings.Contains(line, `"allowed"`) {
			continue
		}
		wraps++
		if sum = sum[:64]; !known[sum] {
			t.Errorf("the history lacks an export under %s", sum)
		}
	}
	if wraps == 0 {
		t.Error("the audit trail has no export")
	}
}

func cmks(t *testing.T, s *stage.Stage) []string {
	t.Helper()
	var ids []string
	for _, region := range []string{stage.Region, stage.OtherRegion} {
		list, err := s.ClientIn(region).ListKeys(t.Context(), kmsapi.Page{Number: 1, Size: kmsapi.MaxPageSize})
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range list.Keys {
			ids = append(ids, key.KeyID)
		}
	}
	return ids
}
