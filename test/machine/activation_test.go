//go:build root

package machine

import (
	"strings"
	"testing"
)

// socketUnits are those that an installation has enabled.
var socketUnits = []string{"kmsbrokerd-control.socket", "kmsbrokerd-application.socket", "kmsbrokerd-alibaba.socket", "kmsbrokerd-metrics.socket"}

// activate lets systemd have the sockets, before there is a daemon.
func (b *Broker) activate() {
	b.t.Helper()
	b.Must(b.Exec(nil, "systemctl", "stop", daemonUnit))
	b.Install("/usr/lib/tmpfiles.d/kmsbroker.conf", "root:root", 0o644, b.packaged("kmsbroker.tmpfiles"))
	b.Must(b.Exec(nil, "systemd-tmpfiles", "--create", "kmsbroker.conf"))
	for _, unit := range append([]string{"kmsbrokerd-kubernetes@.socket"}, socketUnits...) {
		b.Install("/etc/systemd/system/"+unit, "root:root", 0o644, b.packaged(unit))
	}
	b.Must(b.Exec(nil, "systemctl", "daemon-reload"))
	b.Must(b.Exec(nil, append([]string{"systemctl", "start"}, socketUnits...)...))
}

// TestSocketActivation: sockets are there before the daemon, with their rights, and
// the first caller starts it.
func TestSocketActivation(t *testing.T) {
	b := BootBroker(t, applications)
	b.Import("payments")
	b.activate()
	rights := b.Must(b.Exec(nil, "sh", "-c", "cd /run/kmsbroker && stat -c '%n %a %G' admin admin/control.sock kms.sock alibaba.sock metrics.sock"))
	want := "admin 750 kmsbroker-admin\nadmin/control.sock 660 kmsbroker-admin\nkms.sock 666 root\nalibaba.sock 666 root\nmetrics.sock 660 kmsbroker-admin\n"
	if rights != want {
		t.Errorf("the sockets are\n%swant\n%s", rights, want)
	}
	if b.daemonPID() != "0" {
		t.Error("the daemon runs before anybody called")
	}
	b.Must(b.Encrypt(As{User: Alice}, "payments"))
	b.Refused(b.Ctl(As{User: Alice}, "status"), 4, "permission denied")
	b.Must(b.Ctl(As{User: Carol}, "status"))
	b.Must(b.Exec(nil, "systemctl", "stop", daemonUnit))
	if now := b.Must(b.Exec(nil, "sh", "-c", "cd /run/kmsbroker && stat -c '%n %a %G' admin admin/control.sock kms.sock alibaba.sock metrics.sock")); now != want {
		t.Errorf("after the daemon the sockets are\n%s", now)
	}
	b.Must(b.Encrypt(As{User: Alice}, "payments"))
}

// TestActivatedRestart restarts the daemon under the load of clients that try nothing
// twice.
func TestActivatedRestart(t *testing.T) {
	b := BootBroker(t, toCrowd)
	b.installCaller()
	b.Import("crowd")
	b.activate()
	once := b.Start(As{User: Bob}, callerProgram, "once", "crowd", "8")
	if got := once.Line(); got != "there" {
		t.Fatal(got)
	}
	for range 3 {
		pid := b.daemonPID()
		b.Must(b.Exec(nil, "systemctl", "restart", daemonUnit))
		b.Must(b.Run(As{User: Bob, Stdin: []byte("x")}, "kmsbrokerctl", "encrypt", "--key", "crowd"))
		if b.daemonPID() == pid {
			t.Error("the daemon was not restarted")
		}
	}
	once.stdin.Close()
	counts := strings.Fields(once.Line())
	once.End()
	t.Logf("%v calls succeeded, were refused, and failed", counts)
	if counts[0] == "0" || counts[1] != "0" || counts[2] != "0" {
		t.Errorf("across restarts: %v", counts)
	}
}

// TestActivationMistakes: a socket at another place than the configuration says, and
// one that it does not have.
func TestActivationMistakes(t *testing.T) {
	b := BootBroker(t, applications)
	b.Import("payments")
	b.activate()
	b.Must(b.Exec(nil, "systemctl", "start", "kmsbrokerd-kubernetes@prod.socket"))
	b.Must(b.Encrypt(As{User: Alice}, "payments"))
	if journal := b.Journal(daemonUnit); !strings.Contains(journal, "kubernetes-prod") {
		t.Errorf("the journal does not tell of a socket without a door:\n%s", journal)
	}
	b.Must(b.Exec(nil, "systemctl", "stop", daemonUnit))
	b.Install(configFile, "root:root", 0o644, []byte(configuration+applications+"[sockets]\napplication = \"other.sock\"\n"))
	if r := b.Exec(nil, "systemctl", "start", daemonUnit); r.Status == 0 {
		t.Error("started with a socket where nobody looks for it")
	}
	if journal := b.Journal(daemonUnit); !strings.Contains(journal, "change ListenStream=") {
		t.Errorf("the journal does not tell why:\n%s", journal)
	}
}
