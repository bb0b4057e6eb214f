//go:build root

package machine

import (
	"strings"
	"testing"
)

// TestSocketActivation: sockets are there before the daemon, with their rights, and
// the first caller starts it.
func TestSocketActivation(t *testing.T) {
	b := BootBroker(t, applications)
	b.Import("payments")
	b.Must(b.Exec(nil, "systemctl", "stop", daemonUnit))
	rights := b.Must(b.Exec(nil, "sh", "-c", "cd /run/kmsbroker && stat -c '%n %a %U:%G' admin admin/control.sock kms.sock alibaba.sock pkcs11.sock metrics.sock"))
	want := "admin 750 kmsbroker:kmsbroker-admin\nadmin/control.sock 660 kmsbroker:kmsbroker-admin\nkms.sock 666 root:root\n" +
		"alibaba.sock 666 root:root\npkcs11.sock 666 root:root\nmetrics.sock 660 kmsbroker:kmsbroker-admin\n"
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
	if now := b.Must(b.Exec(nil, "sh", "-c", "cd /run/kmsbroker && stat -c '%n %a %U:%G' admin admin/control.sock kms.sock alibaba.sock pkcs11.sock metrics.sock")); now != want {
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
	b.Must(b.Exec(nil, "systemctl", "stop", daemonUnit))
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

// withoutSockets is what a service needs that opens its sockets itself.
const withoutSockets = `
[Service]
SupplementaryGroups=kmsbroker-admin
SystemCallFilter=@chown
`

// TestWithoutActivation: a daemon that systemd passes nothing opens its own sockets.
func TestWithoutActivation(t *testing.T) {
	b := BootBroker(t, applications)
	b.Import("payments")
	b.Must(b.Exec(nil, "systemctl", "stop", daemonUnit))
	b.Must(b.Exec(nil, append([]string{"systemctl", "mask", "--now"}, socketUnits...)...))
	b.Install("/etc/systemd/system/"+daemonUnit+".d/sockets.conf", "root:root", 0o644, []byte(withoutSockets))
	b.Must(b.Exec(nil, "systemctl", "daemon-reload"))
	b.Must(b.Exec(nil, "systemctl", "start", daemonUnit))
	b.Must(b.Encrypt(As{User: Alice}, "payments"))
	b.Must(b.Ctl(As{User: Carol}, "status"))
	b.Refused(b.Ctl(As{User: Alice}, "status"), 4, "permission denied")
}
