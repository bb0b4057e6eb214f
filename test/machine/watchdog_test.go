//go:build root

package machine

import (
	"strings"
	"testing"
)

// impatient has systemd lose patience soon.
func (b *Broker) impatient() {
	b.t.Helper()
	b.Install("/etc/systemd/system/"+daemonUnit+".d/impatient.conf", "root:root", 0o644, []byte("[Service]\nWatchdogSec=2\n"))
	b.Must(b.Exec(nil, "systemctl", "daemon-reload"))
	b.Must(b.Exec(nil, "systemctl", "restart", daemonUnit))
}

func (b *Broker) property(name string) string {
	b.t.Helper()
	return strings.TrimSpace(b.Must(b.Exec(nil, "systemctl", "show", "--value", "--property="+name, daemonUnit)))
}

// fed waits until the watchdog was fed several times.
func (b *Broker) fed(while string) {
	b.t.Helper()
	for range 4 {
		last := b.property("WatchdogTimestampMonotonic")
		b.eventually("the watchdog is fed "+while, func() bool { return b.property("WatchdogTimestampMonotonic") != last })
	}
}

// TestWatchdog: a daemon that is stuck is replaced, and one whose KMS, HSM and disk
// are away is not.
func TestWatchdog(t *testing.T) {
	b := BootBroker(t, applications)
	b.Import("payments")
	b.impatient()
	b.fed("usually")
	pid := b.daemonPID()
	b.installCaller()
	knocking := b.Start(As{User: Bob}, callerProgram, "knock", "64")
	if got := knocking.Line(); got != "there" {
		t.Fatal(got)
	}
	b.fed("while somebody connects and connects")
	knocking.End()
	b.Must(b.Exec(nil, "systemctl", "kill", "--signal=SIGSTOP", "--kill-whom=main", "emulator.service"))
	for _, process := range b.processes(daemonUnit) {
		if process != pid {
			b.Must(b.Exec(nil, "sh", "-c", "kill -STOP "+process)) // the plugin
		}
	}
	b.Must(b.Exec(nil, "sh", "-c", "mv /var/lib/kmsbroker/audit /var/lib/kmsbroker/away"))
	b.Refused(b.Encrypt(As{User: Alice}, "payments"), 1)
	b.fed("without KMS, HSM and trail")
	if now := b.daemonPID(); now != pid {
		t.Errorf("the daemon %s was replaced by %s", pid, now)
	}
	b.Must(b.Exec(nil, "sh", "-c", "mv /var/lib/kmsbroker/away /var/lib/kmsbroker/audit"))
	b.Must(b.Exec(nil, "systemctl", "kill", "--signal=SIGCONT", "emulator.service"))

	b.Must(b.Exec(nil, "sh", "-c", "kill -STOP "+pid))
	b.eventually("a stuck daemon is replaced", func() bool { now := b.daemonPID(); return now != pid && now != "0" })
	b.eventually("its successor is ready", func() bool { return b.property("ActiveState") == "active" })
	if journal := b.Journal(daemonUnit); !strings.Contains(journal, "atchdog timeout") {
		t.Errorf("the journal does not tell of the watchdog:\n%s", journal)
	}
	b.Must(b.Encrypt(As{User: Alice}, "payments"))
}

// TestSystemdStatus: `systemctl status` says how things are, and knows of a reload; the
// journal has fields.
func TestSystemdStatus(t *testing.T) {
	b := BootBroker(t, applications)
	b.eventually("a status", func() bool { return strings.Contains(b.property("StatusText"), "1 of 1 backends ready; 0 keys") })
	found := b.Must(b.Exec(nil, "journalctl", "--no-pager", "--output=cat", "_SYSTEMD_UNIT="+daemonUnit, "KMSBROKER_BACKEND=hsm", "PRIORITY=6"))
	if !strings.Contains(found, "backend ready backend=hsm pid=") || strings.Contains(found, "kmsbrokerd ready") {
		t.Errorf("the journal has of the backend:\n%s", found)
	}
	b.Must(b.Exec(nil, "systemctl", "reload", daemonUnit))
	b.eventually("the reload is over", func() bool { return b.property("ActiveState") == "active" })
}
