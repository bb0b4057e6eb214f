// Package faults kills the daemon with SIGKILL at every fault point of an import,
// a rotation and a re-import, and looks at what the next daemon makes of it.
package faults

import (
	"fmt"
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
	// steps whose points must have been passed.
	steps []string
}

func scenarios() []scenario {
	importKey := []string{"key", "import", "app-1", "--backend", "hsm", "--alias", "alias/app-1"}
	region := []string{"create", "parameters", "wrap", "import", "verify", "alias"}
	imported := func(s *stage.Stage) { s.Must(s.Ctl(s.Control(), importKey...), nil) }
	return []scenario{
		{"import", func(*stage.Stage) {}, importKey, 1, 1, append([]string{"generate"}, region...)},
		{"rotate", imported, []string{"key", "rotate", "app-1"}, 2, 2, append([]string{"generate"}, region...)},
		{"reimport", imported, []string{"key", "reimport", "app-1"}, 1, 1, nil},
	}
}

func TestKillAtEveryFaultPoint(t *testing.T) {
	program := build(t)
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			points := trace(t, program, sc)
			t.Logf("%d fault points", len(points))
			checkPoints(t, sc, points)
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

// checkPoints makes sure that no step and no kind of call lost its points.
func checkPoints(t *testing.T, sc scenario, points []string) {
	t.Helper()
	var want []string
	for _, step := range sc.steps {
		for _, where := range []string{"before-begin", "after-begin", "before-end", "after-end"} {
			want = append(want, "import/"+step+"/"+where)
		}
	}
	for _, call := range []string{"kms/GetParametersForImport", "kms/ImportKeyMaterial", "hsm/wrap HSM key"} {
		want = append(want, call+"/before", call+"/after")
	}
	if sc.steps != nil {
		want = append(want, "kms/CreateKey/before", "kms/CreateKey/after", "hsm/generate HSM key/before", "hsm/generate HSM key/after")
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
	s.Start()
	if r := s.Ctl(s.Control(), sc.command...); r.Status != 0 && !strings.Contains(r.Stderr, "exists already") {
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

func cmks(t *testing.T, s *stage.Stage) []string {
	t.Helper()
	list, err := s.Client().ListKeys(t.Context(), kmsapi.Page{Number: 1, Size: kmsapi.MaxPageSize})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, len(list.Keys))
	for i, key := range list.Keys {
		ids[i] = key.KeyID
	}
	if list.Total != len(ids) {
		t.Fatal(fmt.Errorf("%d CMKs are too many for this test", list.Total))
	}
	return ids
}
