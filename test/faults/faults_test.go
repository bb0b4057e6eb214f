// Package faults kills the daemon with SIGKILL at every fault point of an import,
// a rotation and a re-import, and looks at what the next daemon makes of it.
package faults

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// scenario is a command that must survive being killed anywhere.
type scenario struct {
	name string
	// prepare brings the stage to where the command starts, with the daemon that has
	// fault points.
	prepare func(s *stage.Stage, program string)
	command []string
	again   []string // that continues it, if it is another
	// Afterwards there are so many CMKs and HSM keys.
	cmks, hsmKeys int
	// plan is the command that lists its steps, whose points must be passed; nil for
	// one without a journal.
	plan []string
	// must are more points that must be passed.
	must   []string
	sealed bool // the HSM key cannot be exported afterwards
}

var importKey = []string{"key", "import", "app-1", "--backend", "hsm", "--alias", "alias/app-1"}

func scenarios() []scenario {
	continued := []string{"key", "import", "app-1"}
	planned := func(command []string) []string { return append(slices.Clone(command), "--dry-run") }
	rotate, add := []string{"key", "rotate", "app-1"}, []string{"key", "add-region", "app-1", stage.OtherRegion}
	twice := append(slices.Clone(importKey), "--region", stage.Region, "--region", stage.OtherRegion)
	return []scenario{
		{name: "import", prepare: nothing, command: importKey, again: continued, cmks: 1, hsmKeys: 1, plan: planned(importKey)},
		{name: "import in two regions", prepare: nothing, command: twice, again: continued, cmks: 2, hsmKeys: 1, plan: planned(twice)},
		{
			name: "import continued", prepare: interrupted, command: continued, cmks: 1, hsmKeys: 1,
			must: []string{
				"import/resume/before", "import/resume/after", "kms/ListTagResources/before", "kms/ListTagResources/after",
				"kms/DescribeKey/before", "import/finish/after",
			},
		},
		{name: "rotate", prepare: imported, command: rotate, cmks: 2, hsmKeys: 2, plan: planned(rotate)},
		{name: "add-region", prepare: imported, command: add, cmks: 2, hsmKeys: 1, plan: planned(add)},
		{
			name: "reimport", prepare: imported, command: []string{"key", "reimport", "app-1"}, cmks: 1, hsmKeys: 1,
			must: []string{"reimport/finish/before", "reimport/finish/after", "hsm/wrap HSM key/before", "hsm/wrap HSM key/after"},
		},
		{
			name: "seal", prepare: imported, command: []string{"key", "seal", "app-1", "--yes"}, cmks: 1, hsmKeys: 1, sealed: true,
			must: []string{"hsm/seal HSM key/before", "hsm/seal HSM key/after", "seal/mark/before", "seal/mark/after"},
		},
	}
}

func nothing(*stage.Stage, string) {}

// imported makes the key.
func imported(s *stage.Stage, program string) {
	d := s.StartProgram(program)
	s.Must(s.Ctl(s.Control(), importKey...), nil)
	d.Stop()
}

// interrupted leaves an import whose CMK was made and never heard of.
func interrupted(s *stage.Stage, program string) {
	d := s.StartProgram(program, "KMSBROKER_FAULT_KILL=kms/CreateKey/after#1")
	s.Ctl(s.Control(), importKey...)
	<-d.Ended()
}

func TestKillAtEveryFaultPoint(t *testing.T) {
	program := build(t)
	if shipped, err := os.ReadFile(filepath.Join(stage.Binaries(t), "kmsbrokerd")); err != nil || bytes.Contains(shipped, []byte("KMSBROKER_FAULT")) {
		t.Errorf("the daemon that ships has fault points, %v", err)
	}
	total := 0
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			points := trace(t, program, sc)
			total += len(points)
			t.Logf("%d fault points, %d in all so far", len(points), total)
			checkPoints(t, sc, points, planned(t, program, sc))
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
	sc.prepare(s, program)
	d := s.StartProgram(program, env...)
	if err := d.Wait("backend ready"); err != nil {
		t.Fatal(err)
	}
	return s, d
}

// planned lists the steps that the command would take, without the plan itself,
// which makes nothing and has no journal.
func planned(t *testing.T, program string, sc scenario) []string {
	t.Helper()
	if sc.plan == nil {
		return nil
	}
	s, d := start(t, program, sc)
	defer d.Stop()
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
	before, asked := lines(t, file), s.AllActions()
	s.Must(s.Ctl(s.Control(), sc.command...), nil)
	points := lines(t, file)[len(before):]
	checkCalls(t, points, s.AllActions()[len(asked):])
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

// checkCalls makes sure that every call that KMS met passed its points.
func checkCalls(t *testing.T, points, actions []string) {
	t.Helper()
	for _, action := range slices.Compact(slices.Sorted(slices.Values(actions))) {
		met := 0
		for _, a := range actions {
			if a == action {
				met++
			}
		}
		for _, where := range []string{"before", "after"} {
			passed := 0
			for _, p := range points {
				if strings.HasPrefix(p, "kms/"+action+"/"+where+"#") {
					passed++
				}
			}
			if passed != met {
				t.Errorf("KMS met %d calls of %s, and %d passed the point %s", met, action, passed, where)
			}
		}
	}
}

// checkPoints makes sure that no step of the table and no kind of call lost its
// points.
func checkPoints(t *testing.T, sc scenario, points, steps []string) {
	t.Helper()
	want := slices.Clone(sc.must)
	if sc.plan != nil {
		want = append(want, "import/open/before", "import/open/after", "import/finish/before", "import/finish/after",
			"export/remember/before", "export/remember/after", "export/record/after", "hsm/wrap HSM key/before", "hsm/wrap HSM key/after")
	}
	for _, step := range steps {
		for _, where := range []string{"before-begin", "after-begin", "before-end", "after-end"} {
			want = append(want, "import/"+step+"/"+where)
		}
	}
	if slices.Contains(steps, "generate") {
		want = append(want, "hsm/generate HSM key/before", "hsm/generate HSM key/after")
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
	known := s.CMKs()
	if err := s.Start().Wait("backend ready"); err != nil {
		t.Fatal(err)
	}
	again := sc.command
	if sc.again != nil && unfinished(s) {
		again = sc.again
	}
	if r := s.Ctl(s.Control(), again...); r.Status != 0 && !strings.Contains(r.Stderr, "already") {
		t.Fatalf("the command does not continue: %d\n%s", r.Status, r.Stderr)
	}
	var key stage.Key
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "show", "app-1"), &key)
	after := s.CMKs()
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
	s.Must(s.Ctl("", "audit", "verify", "--dir", s.Path("state/audit")), nil)
	verify := []string{"key", "verify", "app-1", "--material"}
	if sc.sealed {
		s.Refused(s.Ctl(s.Control(), "key", "reimport", "app-1"), 1, "sealed")
		verify = verify[:3]
	}
	s.Must(s.Ctl(s.Control(), verify...), nil)
	if owner, err := s.Client().DescribeKey(t.Context(), "alias/app-1"); err != nil || owner.KeyID != key.KeyID {
		t.Errorf("the alias is of %+v, %v", owner, err)
	}
}

// unfinished reports whether there is an import to be continued.
func unfinished(s *stage.Stage) bool {
	var status struct{ Unfinished []struct{ Name string } }
	s.Must(s.Ctl(s.Control(), "-o", "json", "status"), &status)
	return len(status.Unfinished) > 0
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
