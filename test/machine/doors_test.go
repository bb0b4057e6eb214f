//go:build root

package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// doorsProgram does what a task says at every door.
const doorsProgram = "/usr/local/bin/doors"

// maker may do everything, and makes what others try to open.
const maker = "nobody"

const forOthers = `
[[grant]]
keys       = ["*"]
operations = ["encrypt", "decrypt"]
users      = ["nobody"]

[[grant]]
keys       = ["app-web"]
operations = ["decrypt"]
units      = ["open.service"]

[[grant]]
keys       = ["app-secret"]
operations = ["generate-data-key-without-plaintext"]
users      = ["bob"]
`

// forApp has what tells applications over TCP apart.
const forApp = `
[alibaba]
listen = "127.0.0.1:8765"

[[grant]]
keys       = ["app-*"]
operations = ["encrypt", "decrypt"]
apps       = ["web", "batch-*"]
context    = { app = "{app}" }

[[grant]]
effect     = "deny"
keys       = ["app-secret"]
operations = ["encrypt"]
apps       = ["batch-1"]
`

// clusters give each key a provider of its own name.
func clusters(keys ...string) string {
	var b strings.Builder
	for _, key := range keys {
		fmt.Fprintf(&b, "\n[kubernetes.%s]\nkey = %q\n", key, key)
	}
	return b.String()
}

type in = map[string]string

// request is what somebody wants of a key.
type request struct {
	as      As
	app     string // instead of as
	op      string
	key     string
	context in
	allowed bool
	unit    bool // allowed for the unit's sake
}

func (r *request) String() string {
	who := r.as.User
	if r.app != "" {
		who = "app " + r.app
	}
	return fmt.Sprintf("%s in %q: %s with %s in %v", who, r.as.Unit, r.op, r.key, r.context)
}

var requests = []request{
	{as: As{User: Bob}, op: "encrypt", key: "tenants", context: in{"tenant": "bob"}, allowed: true},
	{as: As{User: Bob}, op: "encrypt", key: "tenants", context: in{"tenant": "bob", "more": "1"}, allowed: true},
	{as: As{User: Bob}, op: "encrypt", key: "tenants", context: in{"tenant": "alice"}},
	{as: As{User: Bob}, op: "encrypt", key: "tenants"},
	{as: As{User: Bob}, op: "encrypt", key: "tenants", context: in{"tenant": "bob", "frozen": "yes"}},
	{as: As{User: Bob}, op: "encrypt", key: "tenants", context: in{"tenant": "bob", "frozen": "no"}, allowed: true},
	{as: As{User: Bob}, op: "encrypt", key: "tenants", context: in{"tenant": "bob", "kmsbroker.purpose": "envelope"}},
	{as: As{User: Alice}, op: "encrypt", key: "tenants", context: in{"tenant": "alice"}},
	{as: As{User: Alice}, op: "encrypt", key: "app-web", allowed: true},
	{as: As{User: Alice}, op: "encrypt", key: "app-secret"},
	{as: As{User: Alice, Unit: "app.service"}, op: "encrypt", key: "app-secret"},
	{as: As{User: Carol}, op: "encrypt", key: "app-web"},
	{as: As{User: Carol, Unit: "app.service"}, op: "encrypt", key: "app-web", allowed: true, unit: true},
	{as: As{User: Carol, Unit: "app@7.service"}, op: "encrypt", key: "app-secret", allowed: true, unit: true},
	{as: As{User: Carol, Unit: "web.service"}, op: "encrypt", key: "app-web"},
	{as: As{User: "root"}, op: "encrypt", key: "app-web"},
	{as: As{User: Alice}, op: "generate-data-key", key: "app-web", allowed: true},
	{as: As{User: Alice}, op: "generate-data-key-without-plaintext", key: "app-web"},
	{as: As{User: Bob}, op: "generate-data-key", key: "tenants", context: in{"tenant": "bob"}},
	{as: As{User: Bob}, op: "generate-data-key-without-plaintext", key: "app-secret", allowed: true},

	{as: As{User: Bob}, op: "decrypt", key: "tenants", context: in{"tenant": "bob"}, allowed: true},
	{as: As{User: Bob}, op: "decrypt", key: "tenants", context: in{"tenant": "alice"}},
	{as: As{User: Alice}, op: "decrypt", key: "tenants", context: in{"tenant": "alice"}},
	{as: As{User: Alice}, op: "decrypt", key: "app-web"},
	{as: As{User: Bob}, op: "decrypt", key: "app-web"},
	{as: As{User: Carol, Unit: "open.service"}, op: "decrypt", key: "app-web", allowed: true, unit: true},
	{as: As{User: "root"}, op: "decrypt", key: "app-web"},

	{app: "web", op: "encrypt", key: "app-web", context: in{"app": "web"}, allowed: true},
	{app: "web", op: "encrypt", key: "app-web", context: in{"app": "batch-1"}},
	{app: "web", op: "encrypt", key: "app-web"},
	{app: "web", op: "encrypt", key: "tenants", context: in{"app": "web"}},
	{app: "web", op: "encrypt", key: "app-web", context: in{"app": "web", "kmsbroker.purpose": "envelope"}},
	{app: "batch-1", op: "encrypt", key: "app-secret", context: in{"app": "batch-1"}},
	{app: "batch-1", op: "encrypt", key: "app-web", context: in{"app": "batch-1"}, allowed: true},
	{app: "batch-1", op: "generate-data-key", key: "app-web", context: in{"app": "batch-1"}},
	{app: "web", op: "decrypt", key: "app-web", context: in{"app": "web"}, allowed: true},
	{app: "web", op: "decrypt", key: "app-web", context: in{"app": "batch-1"}},
	{app: "other", op: "decrypt", key: "app-web", context: in{"app": "other"}},
}

// ending is what the program tells of a door.
type ending struct{ Door, Way, Ended string }

type accessKeyOf struct{ ID, Secret string }

// doors is a broker with the program, what the maker made, and access keys.
type doors struct {
	*Broker
	made   map[string]json.RawMessage // by key and context
	keys   map[string]*accessKeyOf    // by app
	denied map[string]int             // by user, since the daemon started
}

func bootDoors(t *testing.T) *doors {
	t.Helper()
	all := []string{"tenants", "app-web", "app-secret"}
	b := BootBroker(t, rules+forOthers+forApp+clusters(all...))
	b.installProgram("doors", doorsProgram)
	for _, key := range all {
		b.Import(key)
	}
	d := &doors{b, map[string]json.RawMessage{}, map[string]*accessKeyOf{}, map[string]int{}}
	for _, app := range []string{"web", "batch-1", "other"} {
		b.Must(b.Ctl(As{}, "app", "issue", app, "--out", "/root/"+app))
		issued := b.Must(b.Exec(nil, "sed", "-n", `s/.* = "\(.*\)"/\1/p`, "/root/"+app))
		id, secret, _ := strings.Cut(strings.TrimSpace(issued), "\n")
		d.keys[app] = &accessKeyOf{id, secret}
	}
	return d
}

// do runs a task as somebody, and decodes what comes back.
func (d *doors) do(as As, task map[string]any, into any) {
	d.t.Helper()
	stdin, err := json.Marshal(task)
	if err != nil {
		d.t.Fatal(err)
	}
	as.Stdin = stdin
	d.MustJSON(d.Run(as, doorsProgram), into)
}

// sealed has the maker encrypt under a key in a context.
func (d *doors) sealed(key string, of in) json.RawMessage {
	d.t.Helper()
	id := fmt.Sprint(key, of)
	if d.made[id] == nil {
		var made json.RawMessage
		d.do(As{User: maker}, map[string]any{"op": "make", "key": key, "context": of}, &made)
		d.made[id] = made
	}
	return d.made[id]
}

// records returns what the trail has of applications.
func (d *doors) records() []Record {
	d.t.Helper()
	var all []Record
	for line := range strings.Lines(d.Must(d.Ctl(As{}, "-o", "json", "audit", "search"))) {
		var r Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			d.t.Fatal(err)
		}
		if r.Door != "" && r.Door != "control" {
			all = append(all, r)
		}
	}
	return all
}

// atAllDoors makes a request and returns how each door answered, with the record of it.
func (d *doors) atAllDoors(r *request) ([]ending, []Record) {
	d.t.Helper()
	task := map[string]any{"op": r.op, "key": r.key, "context": r.context}
	if r.op == "decrypt" {
		task["sealed"] = d.sealed(r.key, r.context)
	}
	if r.app != "" {
		task["app"] = d.keys[r.app]
	}
	const most = 20 // a user's denials are counted instead of recorded when they become many
	if d.denied[r.as.User] > most {
		d.Must(d.Exec(nil, "systemctl", "restart", daemonUnit))
		clear(d.denied)
	}
	before := len(d.records())
	var endings []ending
	d.do(r.as, task, &endings)
	for _, e := range endings {
		if e.Ended != "allowed" {
			d.denied[r.as.User]++
		}
	}
	return endings, d.records()[before:]
}

// TestDoorMatrix: whatever a caller asks for, and at whatever door, the same is
// decided and the same is on record, which is what `policy explain` says.
func TestDoorMatrix(t *testing.T) {
	d := bootDoors(t)
	known := unitsKnown(t)
	tried := map[string]map[string]bool{} // doors and ways by how they ended
	for _, r := range requests {
		allowed := r.allowed && (known || !r.unit)
		want := Record{Action: r.op, Outcome: "denied", Key: r.key, Caller: &Caller{App: r.app}}
		ended := "denied"
		if allowed {
			ended, want.Outcome = "allowed", "done"
		}
		if r.app == "" {
			want.Caller = &Caller{UID: uids[r.as.User], GID: uids[r.as.User], Unit: r.as.Unit}
		}
		endings, records := d.atAllDoors(&r)
		if len(records) != len(endings) || len(endings) == 0 {
			t.Errorf("%v: %d records of %d calls", &r, len(records), len(endings))
			continue
		}
		for i, e := range endings {
			if e.Ended != ended {
				t.Errorf("%v: %s %s: %s, want %s", &r, e.Door, e.Way, e.Ended, ended)
			}
			d.compare(&r, e, records[i], want, known)
			if tried[ended] == nil {
				tried[ended] = map[string]bool{}
			}
			tried[ended][e.Door+" "+e.Way] = true
		}
		d.explain(&r, allowed)
	}
	for _, ended := range []string{"allowed", "denied"} {
		if ways := slices.Sorted(maps.Keys(tried[ended])); len(ways) != allWays {
			t.Errorf("%s in %d ways: %v", ended, len(ways), ways)
		}
	}
}

// allWays is how many ways to do something the program has at all doors.
const allWays = 16

// compare holds a record against the one that is due.
func (d *doors) compare(r *request, e ending, got, want Record, known bool) {
	d.t.Helper()
	if r.op == "decrypt" && want.Outcome == "denied" && got.Key == "" {
		want.Key = "" // whose blob it is was not said, and is not told
	}
	if r.as.Unit == "" || !known {
		// systemd has made up the name of a unit.
		want.Caller.Unit = got.Caller.Unit
	}
	if got.Door != e.Door || got.Action != want.Action || got.Outcome != want.Outcome || got.Key != want.Key || *got.Caller != *want.Caller {
		d.t.Errorf("%v: %s %s: on record is %+v of %+v, want %+v of %+v", r, e.Door, e.Way, got, *got.Caller, want, *want.Caller)
	}
}

// explain asks an administrator's tool.
func (d *doors) explain(r *request, allowed bool) {
	d.t.Helper()
	args := []string{"-o", "json", "policy", "explain", "--key", r.key, "--op", r.op}
	if r.app != "" {
		args = append(args, "--app", r.app)
	} else {
		args = append(args, "--user", r.as.User)
	}
	if r.as.Unit != "" {
		args = append(args, "--unit", r.as.Unit)
	}
	for name, value := range r.context {
		args = append(args, "--context", name+"="+value)
	}
	var told struct{ Allowed bool }
	d.MustJSON(d.Ctl(As{}, args...), &told)
	if told.Allowed != allowed {
		d.t.Errorf("%v: policy explain says %v", r, told.Allowed)
	}
}

// TestStolenDataKeys: what KMS has encrypted for the broker itself opens at no door,
// not even for who may do everything with the key.
func TestStolenDataKeys(t *testing.T) {
	d := bootDoors(t)
	var endings []ending
	d.do(As{User: maker}, map[string]any{"op": "steal", "key": "app-web", "sealed": d.sealed("app-web", nil)}, &endings)
	if len(endings) != 11 {
		t.Errorf("%d attempts: %v", len(endings), endings)
	}
	for _, e := range endings {
		refused := e.Ended == "denied" || strings.Contains(e.Ended, "InvalidArgument") || strings.Contains(e.Ended, "HTTP 400") || strings.Contains(e.Ended, "HTTP 404")
		if strings.Contains(e.Way, "reserved") && e.Ended != "denied" || !refused {
			t.Errorf("%s %s: %s", e.Door, e.Way, e.Ended)
		}
	}
}

// TestClusterDirectory: a pod has mounted it, so it stays the same one, whatever
// becomes of the daemon; and a socket that a dead daemon left is in nobody's way.
func TestClusterDirectory(t *testing.T) {
	b := BootBroker(t, forOthers+clusters("app-web"))
	b.installProgram("doors", doorsProgram)
	b.Import("app-web")
	const directory = "/run/kmsbroker/kubernetes"
	identity := func() string { return b.Must(b.Exec(nil, "stat", "-c", "%i %a %U", directory)) }
	first := identity()
	for _, commands := range [][]string{{"restart"}, {"stop", "start"}, {"kill --signal=SIGKILL --kill-whom=main"}} {
		pid := b.daemonPID()
		for _, command := range commands {
			b.Must(b.Exec(nil, append([]string{"systemctl"}, append(strings.Fields(command), daemonUnit)...)...))
		}
		b.eventually("another daemon", func() bool {
			return b.daemonPID() != pid && b.Exec(nil, "systemctl", "is-active", "--quiet", daemonUnit).Status == 0
		})
		if now := identity(); now != first {
			t.Errorf("%v: the directory was %s, is %s", commands, first, now)
		}
		var made json.RawMessage
		(&doors{Broker: b}).do(As{User: maker}, map[string]any{"op": "make", "key": "app-web"}, &made)
	}
	b.Must(b.Exec(nil, "systemctl", "stop", daemonUnit))
	if left := b.Must(b.Exec(nil, "find", directory, "-type", "s")); left != "" {
		t.Errorf("a daemon that ended left %s", left)
	}
}

func (b *Broker) daemonPID() string {
	b.t.Helper()
	return strings.TrimSpace(b.Must(b.Exec(nil, "systemctl", "show", "--value", "--property=MainPID", daemonUnit)))
}
