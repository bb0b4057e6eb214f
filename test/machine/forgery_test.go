//go:build root

package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	callerProgram = "/usr/local/bin/caller"
	handover      = "/tmp/handover"
)

// installCaller builds and installs the program caller.
func (b *Broker) installCaller() {
	b.t.Helper()
	b.installProgram("caller", callerProgram)
}

// installProgram installs what a folder beside this one builds.
func (b *Broker) installProgram(folder, path string) {
	b.t.Helper()
	built := filepath.Join(b.t.TempDir(), folder)
	build := exec.Command("go", "build", "-tags", "root", "-o", built, "./"+folder)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.t.Fatalf("build %s: %v\n%s", folder, err, out)
	}
	b.Install(path, "root:root", 0o755, b.read(built))
}

var (
	granted  = As{User: Alice, Unit: "payments.service"}
	stranger = As{User: Bob, Unit: "reports.service"}
)

// TestPassedConnection passes a connection from the process that made it to
// another: it remains the connection of who made it.
func TestPassedConnection(t *testing.T) {
	b := BootBroker(t, toPayments)
	b.installCaller()
	b.Import("payments")
	for _, c := range []struct {
		name        string
		giver, user As
		want        string
	}{
		{"of a stranger", stranger, granted, denied},
		{"of a granted unit", granted, stranger, whenUnitsKnown(t)},
	} {
		t.Run(c.name, func(t *testing.T) {
			giver := b.Start(c.giver, callerProgram, "give", handover)
			taker := b.Start(c.user, callerProgram, "take", handover, "payments")
			giver.Line()
			if got := taker.Line(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			giver.End()
			taker.End()
		})
	}
}

// TestEnded has the process end that connected, before the daemon could look at
// it: nobody knows any more what unit it was in.
func TestEnded(t *testing.T) {
	b := BootBroker(t, toPayments)
	b.installCaller()
	b.Import("payments")
	taker := b.Start(stranger, callerProgram, "take", handover, "payments")
	b.signal("STOP")
	b.Must(b.Run(granted, callerProgram, "give", handover))
	b.signal("CONT")
	if got := taker.Line(); got != denied {
		t.Errorf("%s, want %s", got, denied)
	}
}

// TestReusedPID gives the PID of a process that connected and ended to one of the
// granted unit, before the daemon could look.
func TestReusedPID(t *testing.T) {
	b := BootBroker(t, toPayments)
	b.installCaller()
	b.Import("payments")
	taker := b.Start(As{User: Bob}, callerProgram, "take", handover, "payments")
	b.signal("STOP")
	pid := strings.TrimSpace(b.Must(b.Run(stranger, callerProgram, "give", handover)))
	b.Must(b.Exec(nil, "mount", "-o", "remount,bind,rw", "/proc/sys"))
	b.Start(As{Unit: "payments.service"}, "bash", "-c", `
		until [ "${!:-0}" = `+pid+` ]; do
			[ -z "${!:-}" ] || kill -KILL "$!"
			echo $((`+pid+` - 1)) >/proc/sys/kernel/ns_last_pid
			sleep infinity &
		done
		echo "$!"
		wait`).Line()
	if group := b.Must(b.Exec(nil, "cat", "/proc/"+pid+"/cgroup")); !strings.Contains(group, "/system.slice/payments.service\n") {
		t.Fatalf("process %s is in %s", pid, group)
	}
	b.signal("CONT")
	if got := taker.Line(); got != denied {
		t.Errorf("%s, want %s", got, denied)
	}
}

// signal sends a signal to the daemon.
func (b *Broker) signal(name string) {
	b.t.Helper()
	b.Must(b.Exec(nil, "systemctl", "kill", "--kill-whom=main", "--signal="+name, daemonUnit))
}
