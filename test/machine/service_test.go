//go:build root

package machine

import (
	"strings"
	"testing"
)

const applications = `
[[grant]]
keys       = ["payments"]
operations = ["encrypt", "decrypt"]
users      = ["alice"]

[[grant]]
keys       = ["ledger"]
operations = ["encrypt", "decrypt"]
groups     = ["accounting"]
`

// TestGrants has users and groups encrypt and decrypt through the service.
func TestGrants(t *testing.T) {
	b := BootBroker(t, applications)
	b.Import("payments")
	b.Import("ledger")
	for _, c := range []struct {
		user, key string
		allowed   bool
	}{
		{Alice, "payments", true},
		{Alice, "ledger", false},
		{Bob, "payments", false},
		{Bob, "ledger", true},      // by his supplementary group
		{Carol, "payments", false}, // administration is no grant
		{"root", "payments", false},
		{"kmsbroker", "payments", false},
	} {
		as := As{User: c.user}
		r := b.Encrypt(as, c.key)
		if !c.allowed {
			b.Refused(r, 4, "no grant lets", c.key)
			continue
		}
		as.Stdin = []byte(b.Must(r))
		if opened := b.Must(b.Ctl(as, "decrypt")); !strings.Contains(opened, c.user) {
			t.Errorf("%s: %q came back", c.user, opened)
		}
	}
}

// TestControlSocket lets administrators alone come near it.
func TestControlSocket(t *testing.T) {
	b := BootBroker(t, "")
	for _, user := range []string{"root", "kmsbroker", Carol} {
		b.Must(b.Ctl(As{User: user}, "status"))
	}
	for _, user := range []string{Alice, Bob, "nobody"} {
		b.Refused(b.Ctl(As{User: user}, "status"), 4, "permission denied")
	}
}

// TestSandbox looks at what systemd made of the unit, from within and without.
func TestSandbox(t *testing.T) {
	b := BootBroker(t, "")
	b.Import("payments") // the plugin works
	for _, process := range b.processes(daemonUnit) {
		status := b.Must(b.Exec(nil, "cat", "/proc/"+process+"/status"))
		for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"} {
			if !strings.Contains(status, want) {
				t.Errorf("process %s lacks %q:\n%s", process, want, status)
			}
		}
		// The world is read-only even to root, other than where its state is.
		inside := func(args ...string) Result {
			return b.Exec(nil, append([]string{"nsenter", "--target", process, "--mount", "--"}, args...)...)
		}
		for _, path := range []string{"/etc", "/usr/local", "/var/lib", "/home"} {
			b.Refused(inside("touch", path+"/written"), 1, "cannot touch")
		}
		b.Must(inside("touch", "/var/lib/kmsbroker/written", "/run/kmsbroker/written"))
	}
}

// processes returns the PIDs of a unit.
func (b *Broker) processes(unit string) []string {
	b.t.Helper()
	group := b.unitGroup(unit)
	pids := strings.Fields(b.Must(b.Exec(nil, "cat", group+"/cgroup.procs")))
	if len(pids) == 0 {
		b.t.Fatalf("%s has no processes", unit)
	}
	return pids
}

// unitGroup returns the control group of a unit as a directory.
func (b *Broker) unitGroup(unit string) string {
	b.t.Helper()
	group := b.Must(b.Exec(nil, "systemctl", "show", "--value", "--property=ControlGroup", unit))
	return b.unified() + strings.TrimSpace(group)
}

// unified is where the unified hierarchy is mounted: it depends on the host.
func (b *Broker) unified() string {
	b.t.Helper()
	return strings.TrimSpace(b.Must(b.Exec(nil, "findmnt", "-rn", "-t", "cgroup2", "-o", "TARGET")))
}

// TestExposure has systemd judge the unit that ships: 15 is its 1.5 out of 10.
func TestExposure(t *testing.T) {
	m := Boot(t)
	b := &Broker{m}
	b.installUnits()
	b.Must(b.Exec(nil, "systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", "/usr/lib/systemd/system/"+daemonUnit))
	if r := b.Exec(nil, "systemd-analyze", "security", "--offline=true", "--threshold=10", "--no-pager", "/usr/lib/systemd/system/"+daemonUnit); r.Status == 0 {
		t.Errorf("nothing is too much: %v", r)
	}
}
