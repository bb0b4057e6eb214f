//go:build root

package machine

import (
	"fmt"
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

// TestPolicyMatrix has users, groups and units call with contexts, and holds each
// answer against what `policy explain` tells of the caller.
func TestPolicyMatrix(t *testing.T) {
	b := BootBroker(t, rules)
	for _, name := range []string{"tenants", "app-web", "app-secret"} {
		b.Import(name)
	}
	known := unitsKnown(t)
	for _, c := range []struct {
		as       As
		key      string
		context  []string
		allowed  bool
		needUnit bool // allowed for the unit's sake
	}{
		{As{User: Bob}, "tenants", []string{"tenant=bob"}, true, false},
		{As{User: Bob}, "tenants", []string{"tenant=bob", "more=1"}, true, false},
		{As{User: Bob}, "tenants", []string{"tenant=alice"}, false, false},
		{As{User: Bob}, "tenants", nil, false, false},
		{As{User: Bob}, "tenants", []string{"tenant=bob", "frozen=yes"}, false, false},
		{As{User: Bob}, "tenants", []string{"tenant=bob", "frozen=no"}, true, false},
		{As{User: Alice}, "tenants", []string{"tenant=alice"}, false, false},
		{As{User: Alice}, "app-web", nil, true, false},
		{As{User: Alice}, "app-secret", nil, false, false},
		{As{User: Carol}, "app-web", nil, false, false},
		{As{User: Carol, Unit: "app.service"}, "app-web", nil, true, true},
		{As{User: Carol, Unit: "app@7.service"}, "app-secret", nil, true, true},
		{As{User: Carol, Unit: "web.service"}, "app-web", nil, false, false},
		{As{User: Alice, Unit: "app.service"}, "app-secret", nil, false, false},
		{As{User: "root"}, "app-web", nil, false, false},
		{As{User: Bob}, "tenants", []string{"tenant=bob", "kmsbroker.purpose=envelope"}, false, false},
	} {
		name := fmt.Sprintf("%s in %q with %s %v", c.as.User, c.as.Unit, c.key, c.context)
		allowed := c.allowed && (known || !c.needUnit)
		var context []string
		for _, entry := range c.context {
			context = append(context, "--context", entry)
		}
		as := c.as
		as.Stdin = []byte("a secret")
		r := b.Ctl(as, append([]string{"encrypt", "--key", c.key}, context...)...)
		if (r.Status == 0) != allowed || r.Status != 0 && r.Status != 4 {
			t.Errorf("%s: %v", name, r)
		}
		explain := []string{"-o", "json", "policy", "explain", "--user", c.as.User, "--key", c.key, "--op", "encrypt"}
		if c.as.Unit != "" {
			explain = append(explain, "--unit", c.as.Unit)
		}
		var told struct{ Allowed bool }
		b.MustJSON(b.Ctl(As{}, append(explain, context...)...), &told)
		if told.Allowed != allowed {
			t.Errorf("%s: policy explain says %v", name, told.Allowed)
		}
	}
}

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
