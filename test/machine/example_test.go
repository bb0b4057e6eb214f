//go:build root

package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const forWeb = `
[[grant]]
keys       = ["web"]
operations = ["decrypt"]
units      = ["web.service"]
context    = { unit = "{unit}" }

[[grant]]
keys       = ["web"]
operations = ["encrypt"]
users      = ["root"]
`

// TestUnitWithSecret installs the example of a unit that decrypts its own secret, and
// another that has the same file and no grant.
func TestUnitWithSecret(t *testing.T) {
	b := BootBroker(t, forWeb)
	b.Import("web")
	const hidden = "a password for the database"
	b.Must(b.Ctl(As{User: "root", Stdin: []byte(hidden)}, "encrypt", "--key", "web", "--context", "unit=web.service", "--out", "/root/sealed"))
	b.Must(b.Exec(nil, "install", "-D", "-m", "0644", "/root/sealed", "/etc/web/secret.sealed"))
	_, here, _, _ := runtime.Caller(0)
	unit := b.read(filepath.Join(filepath.Dir(here), "../../examples/applications/systemd/web.service"))
	for _, name := range []string{"web.service", "other.service"} {
		b.Install("/etc/systemd/system/"+name, "root:root", 0o644, unit)
	}
	// Which shows what the unit has got, as a service better does not.
	b.Install("/etc/systemd/system/web.service.d/shown.conf", "root:root", 0o644, []byte("[Service]\nExecStart=\nExecStart=sha256sum %t/%N/secret\n"))
	b.Must(b.Exec(nil, "systemctl", "daemon-reload"))

	known := unitsKnown(t)
	started := func(name string) bool {
		// It is over when it has printed what it has; the start waits for what comes before.
		return b.Exec(nil, "systemctl", "start", name).Status == 0
	}
	if got := started("web.service"); got != known {
		t.Errorf("the unit started: %t", got)
	}
	if started("other.service") {
		t.Error("another unit decrypts the secret")
	}
	sum := sha256.Sum256([]byte(hidden))
	if known {
		b.eventually("it has its secret", func() bool { return strings.Contains(b.Journal("web.service"), hex.EncodeToString(sum[:])) })
	}
	if !strings.Contains(b.Journal("other.service"), "no grant lets") {
		t.Errorf("the journal does not tell why:\n%s", b.Journal("other.service"))
	}
	if left := b.Exec(nil, "sh", "-c", "ls -d /run/web /run/other | grep ."); left.Status == 0 {
		t.Errorf("a secret is left: %v", left)
	}
}
