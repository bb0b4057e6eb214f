//go:build root

package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// Who there is on the machine of a broker, besides root and kmsbroker.
const (
	Alice = "alice" // in no group but her own
	Bob   = "bob"   // in the supplementary group accounting
	Carol = "carol" // in kmsbroker-admin
)

// uids are fixed, for audit records and user managers.
var uids = map[string]uint32{"root": 0, Alice: 1001, Bob: 1002, Carol: 1003}

const people = `
u alice 1001 - - /bin/bash
u bob 1002 - - /bin/bash
u carol 1003 - - /bin/bash
m bob accounting
m carol kmsbroker-admin
`

const (
	daemonUnit = "kmsbrokerd.service"
	configFile = "/etc/kmsbroker/kmsbrokerd.toml"
	softhsm    = "/etc/kmsbroker/softhsm2.conf"
	hsmDir     = "/var/lib/softhsm-machine"
	pin        = "1234-user"
	accessKey  = "LTAImachinetest"
	secret     = "machine-test-secret-4711"
)

// socketUnits are those that the service wants.
var socketUnits = []string{"kmsbrokerd-control.socket", "kmsbrokerd-application.socket", "kmsbrokerd-alibaba.socket", "kmsbrokerd-pkcs11.socket", "kmsbrokerd-metrics.socket"}

// emulatorUnit starts everything that needs the emulator once it answers.
const emulatorUnit = `
[Service]
DynamicUser=yes
Environment=ALIBABA_CLOUD_ACCESS_KEY_ID=` + accessKey + ` ALIBABA_CLOUD_ACCESS_KEY_SECRET=` + secret + `
ExecStart=kmsbrokerctl emulator --listen 127.0.0.1:8770
ExecStartPost=bash -c 'until (exec 3<>/dev/tcp/127.0.0.1/8770) 2>/dev/null; do sleep 0.02; done'
`

// siteConf is what this HSM and this site add to the shipped unit.
const siteConf = `
[Unit]
Requires=emulator.service
After=emulator.service

[Service]
LoadCredential=hsm.pin:/etc/kmsbroker/hsm.pin
LoadCredential=credentials.toml:/etc/kmsbroker/credentials.toml
ReadWritePaths=` + hsmDir + `
`

const configuration = `
[audit]
application = "before-answer"

[kms]
region           = "cn-hangzhou"
endpoint         = "http://127.0.0.1:8770"
credentials_file = "/run/credentials/kmsbrokerd.service/credentials.toml"

[backend.hsm]
plugin      = "softhsm"
pin_file    = "/run/credentials/kmsbrokerd.service/hsm.pin"
settings    = { token_label = "machine" }
environment = { SOFTHSM2_CONF = "` + softhsm + `" }
allow_foreign_endpoint = true
`

// Broker is a machine with kmsbroker installed and its service running.
type Broker struct {
	*Machine
}

// BootBroker boots a machine, installs what was built as the README says, with the
// unit that is shipped, a SoftHSM token and an emulated KMS, and starts the service.
// The grants are TOML.
func BootBroker(t testing.TB, grants string) *Broker {
	t.Helper()
	b := &Broker{Boot(t)}
	b.installUnits()
	b.installPrograms()
	b.makeToken()
	b.Install("/etc/kmsbroker/credentials.toml", "root:root", 0o600,
		fmt.Appendf(nil, "access_key_id = %q\naccess_key_secret = %q\n", accessKey, secret))
	b.Install(configFile, "root:root", 0o644, []byte(configuration+grants))
	b.Must(b.Exec(nil, "systemctl", "daemon-reload"))
	b.Must(b.Exec(nil, "systemctl", "start", daemonUnit))
	return b
}

func (b *Broker) installUnits() {
	b.t.Helper()
	b.Install("/usr/lib/sysusers.d/kmsbroker.conf", "root:root", 0o644, b.packaged("kmsbroker.sysusers"))
	b.Install("/usr/lib/sysusers.d/people.conf", "root:root", 0o644, []byte(people))
	b.Must(b.Exec(nil, "systemd-sysusers"))
	for _, unit := range append([]string{daemonUnit, "kmsbrokerd-kubernetes@.socket"}, socketUnits...) {
		b.Install("/usr/lib/systemd/system/"+unit, "root:root", 0o644, b.packaged(unit))
	}
	b.Install("/usr/lib/tmpfiles.d/kmsbroker.conf", "root:root", 0o644, b.packaged("kmsbroker.tmpfiles"))
	b.Must(b.Exec(nil, "systemd-tmpfiles", "--create", "kmsbroker.conf"))
	b.Install("/etc/systemd/system/"+daemonUnit+".d/site.conf", "root:root", 0o644, []byte(siteConf))
	b.Install("/etc/systemd/system/emulator.service", "root:root", 0o644, []byte(emulatorUnit))
}

// packaged reads a file that ships.
func (b *Broker) packaged(name string) []byte {
	b.t.Helper()
	_, here, _, _ := runtime.Caller(0)
	return b.read(filepath.Join(filepath.Dir(here), "../../packaging/systemd", name))
}

func (b *Broker) read(path string) []byte {
	b.t.Helper()
	content, err := os.ReadFile(path) //nolint:gosec // G703: the Makefile names it
	if err != nil {
		b.t.Fatal(err)
	}
	return content
}

func (b *Broker) installPrograms() {
	b.t.Helper()
	bin := stage.Binaries(b.t)
	for _, name := range []string{"kmsbrokerd", "kmsbrokerctl"} {
		b.Install("/usr/local/bin/"+name, "root:root", 0o755, b.read(filepath.Join(bin, name)))
	}
	for _, name := range []string{"softhsm", "SHA256SUMS"} {
		b.Install("/usr/libexec/kmsbroker/plugins/"+name, "root:root", 0o755, b.read(filepath.Join(bin, "plugins", name)))
	}
}

func (b *Broker) makeToken() {
	b.t.Helper()
	b.Install(softhsm, "root:root", 0o644, []byte("directories.tokendir = "+hsmDir+"\nobjectstore.backend = file\nlog.level = ERROR\n"))
	b.Must(b.Exec(nil, "install", "-d", "-o", "kmsbroker", "-g", "kmsbroker", "-m", "0700", hsmDir))
	b.Must(b.Run(As{User: "kmsbroker", Env: []string{"SOFTHSM2_CONF=" + softhsm}},
		"softhsm2-util", "--init-token", "--free", "--label", "machine", "--so-pin", "5678-officer", "--pin", pin))
	b.Install("/etc/kmsbroker/hsm.pin", "root:root", 0o600, []byte(pin+"\n"))
}

// Import imports a key.
func (b *Broker) Import(name string) {
	b.t.Helper()
	b.Must(b.Ctl(As{}, "key", "import", name, "--backend", "hsm"))
}

// Ctl runs kmsbrokerctl.
func (b *Broker) Ctl(as As, args ...string) Result {
	b.t.Helper()
	return b.Run(as, append([]string{"kmsbrokerctl"}, args...)...)
}

// Encrypt runs kmsbrokerctl encrypt.
func (b *Broker) Encrypt(as As, key string) Result {
	b.t.Helper()
	as.Stdin = []byte("a secret of " + as.User)
	return b.Ctl(as, "encrypt", "--key", key)
}

// Record is what tests read of an audit record.
type Record struct {
	Action  string  `json:"action"`
	Outcome string  `json:"outcome"`
	Key     string  `json:"key"`
	Door    string  `json:"door"`
	Caller  *Caller `json:"caller"`
}

// Caller is who an audit record is of, without the PID.
type Caller struct {
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	Unit string `json:"unit"`
	App  string `json:"app"`
}

// LastRecord returns the last audit record of an action.
func (b *Broker) LastRecord(action string) Record {
	b.t.Helper()
	lines := strings.Split(strings.TrimSpace(b.Must(b.Ctl(As{}, "-o", "json", "audit", "search", "--action", action))), "\n")
	var r Record
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil || r.Caller == nil {
		b.t.Fatalf("not the record of a call: %v\n%s", err, lines[len(lines)-1])
	}
	return r
}
