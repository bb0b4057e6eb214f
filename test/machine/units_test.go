//go:build root

package machine

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const toPayments = `
[[grant]]
keys       = ["payments"]
operations = ["encrypt", "decrypt"]
units      = ["payments.service"]
`

// TestUnits has units encrypt, and reads what is on record of them.
func TestUnits(t *testing.T) {
	b := BootBroker(t, toPayments)
	b.Import("payments")
	known := unitsKnown(t)
	for _, c := range []struct {
		as      As
		unit    string // on record
		allowed bool
	}{
		{As{User: Alice, Unit: "payments.service"}, "payments.service", true},
		{As{User: Bob, Unit: "payments.service"}, "payments.service", true},
		{As{User: Bob, Unit: "payments.service", Properties: []string{"Slice=system-bank.slice"}}, "payments.service", true},
		{As{User: Alice, Unit: "reports.service"}, "reports.service", false},
		{As{User: Alice, Unit: "payments@1.service"}, "payments@1.service", false},
		{As{User: "root", Unit: "reports.service"}, "reports.service", false},
		{As{User: "root", Unit: "payments.service", Properties: []string{"Slice=user.slice"}}, "", false},
	} {
		want := Record{Action: "encrypt", Outcome: "denied", Key: "payments", Caller: &Caller{UID: uids[c.as.User], GID: uids[c.as.User]}}
		r := b.Encrypt(c.as, "payments")
		if known {
			want.Caller.Unit = c.unit
		}
		if known && c.allowed {
			want.Outcome = "done"
			b.Must(r)
		} else {
			b.Refused(r, 4, "no grant lets")
		}
		if got := b.LastRecord("encrypt"); *got.Caller != *want.Caller || got.Outcome != want.Outcome || got.Key != want.Key {
			t.Errorf("%+v: on record is %+v of %+v", c.as, got, *got.Caller)
		}
	}
}

// unitsKnown reports whether this kernel has SO_PEERPIDFD. Before Linux 6.5 no
// caller's unit is known for certain, and grants to units do not match.
func unitsKnown(t *testing.T) bool {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	pidfd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return false
	}
	unix.Close(pidfd)
	return true
}

// whenUnitsKnown is how a call ends that a grant to a unit allows.
func whenUnitsKnown(t *testing.T) string {
	t.Helper()
	if unitsKnown(t) {
		return allowed
	}
	return denied
}

// What the program caller prints.
const (
	allowed = "OK"
	denied  = "PermissionDenied"
)

// wait is a program for a unit to be there, until its standard input ends.
var wait = []string{"sh", "-c", "echo there; exec cat"}

// TestNamesakes has an ordinary user make units and control groups that are called
// like the system unit, wherever she can.
func TestNamesakes(t *testing.T) {
	b := BootBroker(t, toPayments)
	b.Import("payments")
	b.Must(b.Exec(nil, "systemctl", "start", "user@1001.service"))
	b.Start(As{Unit: "payments.service"}, wait...).Line()

	login := As{User: Alice, Env: []string{"XDG_RUNTIME_DIR=/run/user/1001"}}
	userUnit := []string{"systemd-run", "--user", "--quiet", "--collect", "--pipe", "--wait", "--unit=payments.service", "--"}
	moveTo := func(group string) []string {
		return []string{"sh", "-euc", `mkdir -p "$1"; echo 0 >"$1/cgroup.procs"; shift; exec "$@"`, "sh", group}
	}
	encrypt := func(through ...[]string) []string {
		return append(join(through), "kmsbrokerctl", "encrypt", "--key", "payments")
	}

	group := b.Must(b.Run(login, append(userUnit, "cat", "/proc/self/cgroup")...))
	if !strings.HasSuffix(group, "/user@1001.service/app.slice/payments.service\n") {
		t.Errorf("the user unit is not where it should be: %s", group)
	}
	b.Refused(b.Run(login, encrypt(userUnit)...), 4, "no grant lets")

	manager := b.unitGroup("user@1001.service")
	b.Refused(b.Run(login, encrypt(userUnit, moveTo(manager+"/system.slice/payments.service"))...), 4, "no grant lets")

	delegated := As{User: Alice, Unit: "reports.service", Properties: []string{"Delegate=yes"}}
	b.Refused(b.Run(delegated, encrypt(moveTo(b.unified()+"/system.slice/reports.service/payments.service"))...), 4, "no grant lets")

	b.Refused(b.Run(delegated, encrypt(moveTo(b.unitGroup("payments.service")))...), 2, "Permission denied")
}

func join(lists [][]string) []string {
	var all []string
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// TestMoved has root move a process between two calls through one connection: its
// caller is who connected, from where that was.
func TestMoved(t *testing.T) {
	b := BootBroker(t, toPayments)
	b.installCaller()
	b.Import("payments")
	for _, c := range []struct{ from, to, want string }{
		{"reports.service", "payments.service", denied},
		{"payments.service", "reports.service", whenUnitsKnown(t)},
	} {
		t.Run(c.from, func(t *testing.T) {
			there := b.Start(As{Unit: c.to}, wait...)
			there.Line()
			caller := b.Start(As{User: Alice, Unit: c.from}, callerProgram, "keep", "payments")
			caller.Say("before")
			if got := caller.Line(); got != c.want {
				t.Errorf("before: %s, want %s", got, c.want)
			}
			pid := b.processes(c.from)[0]
			b.Must(b.Exec([]byte(pid), "tee", b.unitGroup(c.to)+"/cgroup.procs"))
			caller.Say("after")
			if got := caller.Line(); got != c.want {
				t.Errorf("after: %s, want %s", got, c.want)
			}
			caller.End()
			there.End()
		})
	}
}
