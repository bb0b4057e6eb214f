//go:build root

package machine

import (
	"strings"
	"testing"
)

// rules have all that grants can say.
const rules = `
[[grant]]
keys       = ["tenants"]
operations = ["encrypt", "decrypt"]
groups     = ["accounting"]
context    = { tenant = "{user}" }

[[grant]]
keys       = ["app-*"]
operations = ["encrypt", "generate-data-key"]
users      = ["alice"]
units      = ["app.service", "app@*.service"]

[[grant]]
effect     = "deny"
keys       = ["app-secret"]
operations = ["encrypt"]
users      = ["alice"]

[[grant]]
effect     = "deny"
keys       = ["tenants"]
operations = ["encrypt"]
users      = ["bob"]
context    = { frozen = "yes" }

[[grant]]
keys       = ["rated"]
operations = ["encrypt"]
users      = ["bob"]
rate       = "3/h"
`

// TestRatesAndReload: a rate ends, and a reload by systemd changes the rules for those
// who are connected, or leaves them when the file is wrong.
func TestRatesAndReload(t *testing.T) {
	b := BootBroker(t, rules)
	b.installCaller()
	b.Import("rated")
	b.Import("payments")
	for range 3 {
		b.Must(b.Encrypt(As{User: Bob}, "rated"))
	}
	b.Refused(b.Encrypt(As{User: Bob}, "rated"), 1, "3/h")

	caller := b.Start(As{User: Alice}, callerProgram, "keep", "payments")
	call := func() string { caller.Say("again"); return caller.Line() }
	if got := call(); got != denied {
		t.Errorf("before: %s", got)
	}
	b.Install(configFile, "root:root", 0o644, []byte(configuration+rules+"[[grant]]\nkeys = [\"payments\"]\noperations = [\"encrypt\"]\nusers = [\"alice\"]\n"))
	b.Must(b.Exec(nil, "systemctl", "reload", daemonUnit))
	b.eventually("the grant holds", func() bool { return call() == allowed })

	b.Install(configFile, "root:root", 0o644, []byte(configuration+"[[grant]]\nkeys = 7\n"))
	if r := b.Exec(nil, "systemctl", "reload", daemonUnit); r.Status == 0 {
		t.Errorf("a wrong configuration: %v", r)
	}
	b.Refused(b.Ctl(As{}, "policy", "reload"), 1, "keys")
	if got := call(); got != allowed {
		t.Errorf("after a reload that failed: %s", got)
	}
	if journal := b.Journal(daemonUnit); !strings.Contains(journal, "the old policy stays") {
		t.Errorf("the journal does not tell:\n%s", journal)
	}
}

// TestEveryOperation through the service: what was encrypted is opened, moved and
// refused as the grants say.
func TestEveryOperation(t *testing.T) {
	b := BootBroker(t, applications)
	b.Import("payments")
	b.Import("ledger")
	sealed := b.Must(b.Encrypt(As{User: Alice}, "payments"))
	foreign := b.Must(b.Encrypt(As{User: Bob}, "ledger"))
	b.Must(b.Ctl(As{User: Alice, Stdin: []byte(sealed)}, "decrypt"))
	b.Refused(b.Ctl(As{User: Alice, Stdin: []byte(foreign)}, "decrypt"), 4, "not made with a key")
	b.Refused(b.Ctl(As{User: Alice, Stdin: []byte(foreign)}, "decrypt", "--key", "payments"), 4, "not made with a key")
	b.Refused(b.Ctl(As{User: "root", Stdin: []byte(sealed)}, "decrypt"), 4, "no grant lets")
	b.Refused(b.Ctl(As{User: Alice, Stdin: []byte(sealed)}, "decrypt", "--context", "kmsbroker.purpose=envelope"), 4, "broker's own")
	if r := b.LastRecord("decrypt"); r.Outcome != "denied" || r.Caller.UID != uids[Alice] {
		t.Errorf("on record: %+v of %+v", r, *r.Caller)
	}
}

// TestRestart: clients of the Go package see a restart of the service as slow calls.
func TestRestart(t *testing.T) {
	b := BootBroker(t, toCrowd)
	b.installCaller()
	b.Import("crowd")
	steady := b.Start(As{User: Bob}, callerProgram, "steady", "crowd", "8")
	if got := steady.Line(); got != "there" {
		t.Fatal(got)
	}
	for range 3 {
		b.Must(b.Exec(nil, "systemctl", "restart", daemonUnit))
		b.Must(b.Run(As{User: Bob, Stdin: []byte("x")}, "kmsbrokerctl", "encrypt", "--key", "crowd"))
	}
	steady.stdin.Close()
	counts := strings.Fields(steady.Line())
	steady.End()
	t.Logf("%v calls succeeded, were refused, and failed", counts)
	if counts[0] == "0" || counts[1] != "0" || counts[2] != "0" {
		t.Errorf("across restarts: %v", counts)
	}
}
