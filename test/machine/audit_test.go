//go:build root

package machine

import (
	"strings"
	"testing"
)

// TestFullDisk: when the disk of the trail is full nothing is answered, administrators
// can still look, and when there is room again the gap is on record.
func TestFullDisk(t *testing.T) {
	b := BootBroker(t, applications)
	b.installCaller()
	b.Import("payments")
	b.Must(b.Exec(nil, "systemctl", "stop", daemonUnit))
	// The state moves to a small disk of its own.
	b.Must(b.Exec(nil, "sh", "-euc", `
		cp -a /var/lib/kmsbroker /var/lib/kmsbroker.copy
		mount -t tmpfs -o size=24m,mode=0700 small /var/lib/kmsbroker
		chown kmsbroker:kmsbroker /var/lib/kmsbroker
		cp -a /var/lib/kmsbroker.copy/. /var/lib/kmsbroker/`))
	b.Must(b.Exec(nil, "systemctl", "start", daemonUnit))
	b.Must(b.Encrypt(As{User: Alice}, "payments"))

	b.Exec(nil, "sh", "-c", "cat /dev/zero >/var/lib/kmsbroker/filler 2>/dev/null")
	b.eventually("applications are refused", func() bool { return b.Encrypt(As{User: Alice}, "payments").Status != 0 })
	b.Refused(b.Encrypt(As{User: Alice}, "payments"), 1, "audit trail", "free space")
	if shown := b.Must(b.Ctl(As{User: Carol}, "status")); !strings.Contains(shown, "Audit error:") || strings.Contains(shown, "Audit error:         -") {
		t.Errorf("status does not tell:\n%s", shown)
	}
	b.Must(b.Ctl(As{User: Carol}, "policy", "explain", "--user", "alice", "--key", "payments", "--op", "encrypt"))
	if b.metric("kmsbroker_audit_writable") != 0 || b.metric(`kmsbroker_audit_unwritten_total{outcome="refused"}`) < 2 {
		t.Error("the metrics do not tell")
	}

	b.Must(b.Exec(nil, "rm", "/var/lib/kmsbroker/filler"))
	b.eventually("applications are answered", func() bool { return b.Encrypt(As{User: Alice}, "payments").Status == 0 })
	b.Must(b.Ctl(As{}, "audit", "verify"))
	if gap := b.Must(b.Ctl(As{}, "audit", "search", "--action", "audit.gap")); !strings.Contains(gap, "refused=") {
		t.Errorf("the gap is not on record: %s", gap)
	}
}

// TestDumpability: nobody but root reads the memory or the environment of the daemon
// and its plugins, their own user included, and none of them leaves a core file.
func TestDumpability(t *testing.T) {
	b := BootBroker(t, "")
	b.Import("payments")
	for i, process := range b.processes(daemonUnit) {
		for _, file := range []string{"mem", "environ"} {
			b.Refused(b.Run(As{User: "kmsbroker"}, "cat", "/proc/"+process+"/"+file), 1, "ermission denied")
		}
		text := b.Must(b.Exec(nil, "cat", "/proc/"+process+"/limits"))
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			switch {
			case strings.HasPrefix(line, "Max core file size") && fields[4] != "0":
				t.Errorf("process %s may leave a core file: %s", process, line)
			case strings.HasPrefix(line, "Max open files") && i > 0 && fields[3] != "1024": // the first is the daemon
				t.Errorf("process %s: %s", process, line)
			}
		}
	}
}

// TestEncryptedCredentials: systemd decrypts what only this machine can.
func TestEncryptedCredentials(t *testing.T) {
	b := BootBroker(t, applications)
	b.Must(b.Exec(nil, "systemctl", "stop", daemonUnit))
	b.Must(b.Exec(nil, "sh", "-euc", `
		systemd-creds setup
		for name in hsm.pin credentials.toml; do
			systemd-creds encrypt --with-key=host --name=$name /etc/kmsbroker/$name /etc/kmsbroker/$name.cred
			rm /etc/kmsbroker/$name
		done
		sed -i 's|LoadCredential=\(.*\):\(.*\)|LoadCredentialEncrypted=\1:\2.cred|' /etc/systemd/system/kmsbrokerd.service.d/site.conf
		systemctl daemon-reload`))
	b.Must(b.Exec(nil, "systemctl", "start", daemonUnit))
	b.Import("payments")
	b.Must(b.Encrypt(As{User: Alice}, "payments"))
}
