//go:build root

package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// copyDeb puts a package that was built into the machine.
func (b *Broker) copyDeb(variable, path string) {
	b.t.Helper()
	deb := os.Getenv(variable)
	if deb == "" {
		b.t.Fatalf("%s is not set: run make test-system", variable)
	}
	b.Install(path, "root:root", 0o644, b.read(deb))
}

func (b *Broker) apt(args ...string) Result {
	b.t.Helper()
	return b.Run(As{Env: []string{"DEBIAN_FRONTEND=noninteractive"}}, append([]string{"apt-get", "-y", "-qq"}, args...)...)
}

// TestPackage goes with the package through its life: what is installed starts, is
// configured, works, is upgraded under load, and leaves behind what is not its own.
func TestPackage(t *testing.T) {
	b := &Broker{Boot(t)}
	b.copyDeb("KMSBROKER_DEB", "/root/kmsbroker.deb")
	b.copyDeb("KMSBROKER_NEXT_DEB", "/root/next.deb")
	b.Must(b.apt("install", "/root/kmsbroker.deb"))

	b.eventually("the service is active", func() bool { return b.property("ActiveState") == "active" })
	b.Must(b.Ctl(As{}, "status"))
	b.Refused(b.Ctl(As{}, "key", "import", "payments", "--backend", "hsm"), 1, "no KMS is configured")
	if journal := b.Journal(daemonUnit); !strings.Contains(journal, "there is nothing to do before [kms]") {
		t.Errorf("the journal does not say what to do next:\n%s", journal)
	}
	for _, path := range []string{
		"/usr/share/man/man1/kmsbrokerctl-key-import.1.gz", "/usr/share/man/man8/kmsbrokerd.8.gz", "/usr/share/man/man5/kmsbrokerd.toml.5.gz",
		"/usr/share/man/man7/kmsbroker-luna.7.gz", "/usr/share/bash-completion/completions/kmsbrokerctl",
	} {
		b.Must(b.Exec(nil, "test", "-s", path))
	}

	b.Install("/usr/lib/sysusers.d/people.conf", "root:root", 0o644, []byte(people))
	b.Must(b.Exec(nil, "systemd-sysusers", "people.conf"))
	b.Install("/etc/systemd/system/emulator.service", "root:root", 0o644, []byte(emulatorUnit))
	b.Must(b.Exec(nil, "systemctl", "daemon-reload"))
	b.Must(b.Exec(nil, "systemctl", "start", "emulator.service"))
	b.makeToken()
	b.Install("/root/pin", "root:root", 0o600, []byte(pin+"\n"))
	b.Install("/root/key.toml", "root:root", 0o600, []byte("access_key_id = \""+accessKey+"\"\naccess_key_secret = \""+secret+"\"\n"))
	initialize := []string{"init", "--plugin", "softhsm", "--token-label", "machine", "--softhsm-conf", softhsm, "--region", "cn-hangzhou",
		"--endpoint", "http://127.0.0.1:8770", "--allow-foreign-endpoint", "--pin-file", "/root/pin", "--access-key-file", "/root/key.toml"}
	if said := b.Must(b.Ctl(As{}, initialize...)); strings.Contains(said, "problem") || !strings.Contains(said, "in order") {
		t.Errorf("the doctor after init: %s", said)
	}
	b.Refused(b.Ctl(As{}, initialize...), 1, "has something in it already")
	for _, kept := range []string{configFile, "/etc/systemd/system/" + daemonUnit + ".d/kmsbrokerctl-init.conf", "/etc/kmsbroker/hsm.pin.cred", "/etc/kmsbroker/credentials.toml.cred"} {
		if content := b.Must(b.Exec(nil, "cat", kept)); strings.Contains(content, pin) || strings.Contains(content, secret) {
			t.Errorf("%s has a secret in clear", kept)
		}
	}
	written := b.Must(b.Exec(nil, "cat", configFile))
	b.Install(configFile, "root:root", 0o644, []byte(written+toPayments+toCrowd))
	b.Must(b.Exec(nil, "systemctl", "reload", daemonUnit))
	b.Import("payments")
	b.Import("crowd")
	if unitsKnown(t) {
		b.Must(b.Encrypt(As{User: Alice, Unit: "payments.service"}, "payments"))
	}
	b.Refused(b.Encrypt(As{User: Bob, Unit: "other.service"}, "payments"), 4, "no grant lets")

	b.installCaller()
	pid := b.daemonPID()
	once := b.Start(As{User: Bob}, callerProgram, "once", "crowd", "8")
	if got := once.Line(); got != "there" {
		t.Fatal(got)
	}
	b.Must(b.apt("install", "/root/next.deb"))
	b.Must(b.Run(As{User: Bob, Stdin: []byte("x")}, "kmsbrokerctl", "encrypt", "--key", "crowd"))
	once.stdin.Close()
	counts := strings.Fields(once.Line())
	once.End()
	if counts[0] == "0" || counts[1] != "0" || counts[2] != "0" {
		t.Errorf("across the upgrade: %v calls succeeded, were refused, and failed", counts)
	}
	if b.daemonPID() == pid {
		t.Error("the old daemon runs on")
	}
	if got := b.Must(b.Exec(nil, "cat", configFile)); got != written+toPayments+toCrowd {
		t.Error("the upgrade changed the configuration")
	}
	b.Must(b.Ctl(As{}, "key", "show", "payments"))

	b.Must(b.apt("remove", "kmsbroker"))
	b.Must(b.Exec(nil, "sh", "-c", "! systemctl is-active kmsbrokerd.service kmsbrokerd-control.socket kmsbrokerd-application.socket"))
	b.Must(b.Exec(nil, "sh", "-c", "! test -e /run/kmsbroker/kms.sock && ! test -e /usr/bin/kmsbrokerd && test -s /etc/kmsbroker/kmsbrokerd.toml"))
	// Removed and installed again it works as before.
	b.Must(b.apt("install", "/root/next.deb"))
	b.eventually("it is back", func() bool { return b.property("ActiveState") == "active" })
	b.Must(b.Ctl(As{}, "key", "show", "payments"))
	b.Must(b.apt("remove", "kmsbroker"))
	r := b.apt("purge", "kmsbroker")
	b.Must(r)
	if said := r.Stdout + r.Stderr; !strings.Contains(said, "/var/lib/kmsbroker stays") || !strings.Contains(said, "/etc/kmsbroker stays") {
		t.Errorf("a purge does not tell what stays: %v", r)
	}
	b.Must(b.Exec(nil, "sh", "-c", "! test -e "+configFile+" && test -s /var/lib/kmsbroker/keyring.db && test -d /var/lib/kmsbroker/audit"))

	b.Must(b.apt("install", "/root/next.deb"))
	b.Install(configFile, "root:root", 0o644, []byte(written+toPayments))
	b.Must(b.Exec(nil, "systemctl", "restart", daemonUnit))
	b.Must(b.Ctl(As{}, "key", "show", "payments"))
}

// TestRPM: the rpm has what the deb has, and its files come to lie as they should.
func TestRPM(t *testing.T) {
	deb, rpm := os.Getenv("KMSBROKER_DEB"), os.Getenv("KMSBROKER_RPM")
	listed := func(command ...string) []string {
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", command, err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		slices.Sort(lines)
		return lines
	}
	want := listed("sh", "-c", `dpkg-deb -c "$1" | awk '$1 ~ /^-/ {sub("/root", "", $2); print $1, $2, substr($6, 2)}'`, "sh", deb)
	files := listed("rpm", "-qp", "--qf", `[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\n]`, rpm)
	files = slices.DeleteFunc(files, func(line string) bool { return !strings.HasPrefix(line, "-") })
	if got := files; !slices.Equal(got, want) {
		t.Errorf("the rpm has\n%v\nthe deb\n%v", got, want)
	}
	root := t.TempDir()
	listed("rpm", "--root", root, "--nodeps", "--noscripts", "--force-debian", "-i", rpm)
	program := filepath.Join(root, "usr/bin/kmsbrokerd")
	if got := listed(program, "--version"); !strings.HasPrefix(got[0], "kmsbrokerd ") {
		t.Errorf("%v", got)
	}
	listed("sh", "-c", `cd "$1/usr/libexec/kmsbroker/plugins" && sha256sum --check --strict SHA256SUMS`, "sh", root)
	if config := listed("rpm", "-qp", "--configfiles", rpm); !slices.Equal(config, []string{configFile}) {
		t.Errorf("configuration files: %v", config)
	}
}
