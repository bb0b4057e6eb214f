//go:build root

package machine

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// crashVariable has this test binary play a test that is killed.
const crashVariable = "KMSBROKER_MACHINE_CRASH"

// TestCrash boots a machine in another process, kills that without warning, and
// looks for what it left.
func TestCrash(t *testing.T) {
	if os.Getenv(crashVariable) != "" {
		m := Boot(t)
		m.Must(m.Exec(nil, "systemd-run", "--quiet", "sleep", "infinity"))
		fmt.Printf("machine: %s\n", m.name)
		select {}
	}
	crashing := exec.Command(os.Args[0], "-test.run=^TestCrash$")
	crashing.Env = append(os.Environ(), crashVariable+"=yes")
	stdout, err := crashing.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// The keeper has this too, and closes it as the last.
	held, holder, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	crashing.Stderr = holder
	if err := crashing.Start(); err != nil {
		t.Fatal(err)
	}
	holder.Close()
	name := ""
	for lines := bufio.NewScanner(stdout); name == "" && lines.Scan(); {
		name, _ = strings.CutPrefix(lines.Text(), "machine: ")
	}
	if Leftovers(name) == nil {
		t.Errorf("nothing of the running machine %q is found", name)
	}
	_ = crashing.Process.Kill()
	_, _ = io.Copy(io.Discard, held)
	_ = crashing.Wait()
	if left := Leftovers(name); left != nil {
		t.Errorf("left behind: %v", left)
	}
}
