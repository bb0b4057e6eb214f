//go:build root

package machine

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

const pkcs11Program = "/usr/local/bin/pkcs11-client"

const toTokens = `
[proxy]
session_wait = "60s"

[[pkcs11]]
tokens     = ["hsm"]
labels     = ["alice-*"]
operations = ["sign", "verify", "generate", "create", "destroy"]
users      = ["alice"]

[[pkcs11]]
tokens     = ["hsm"]
labels     = ["bob-*"]
operations = ["sign", "verify", "generate", "create", "destroy"]
users      = ["bob"]

[[pkcs11]]
tokens     = ["hsm"]
labels     = ["crowd"]
operations = ["sign", "verify"]
groups     = ["accounting"]
`

func bootTokens(t *testing.T) *Broker {
	t.Helper()
	b := BootBroker(t, toTokens)
	b.installCaller()
	b.installProgram("pkcs11", pkcs11Program)
	for _, user := range []string{Alice, Bob} {
		b.Must(b.Run(As{User: user}, pkcs11Program, "make", user+"-1"))
	}
	return b
}

// pkcs11 reads a series of the proxy.
func (b *Broker) pkcs11(series string) float64 {
	b.t.Helper()
	name, state, ok := strings.Cut(series, " ")
	if ok {
		state = `,state="` + state + `"`
	}
	return b.metric(fmt.Sprintf(`kmsbroker_pkcs11_%s{backend="hsm"%s}`, name, state))
}

// unused waits until nothing is left of clients who are gone.
func (b *Broker) unused() {
	b.t.Helper()
	b.eventually("nothing is lent to PKCS#11 clients", func() bool {
		return b.pkcs11("clients")+b.pkcs11("client_sessions")+b.pkcs11("sessions lent")+b.pkcs11("sessions parked")+b.pkcs11("waiting") == 0
	})
}

func (b *Broker) signs(p *Process) {
	b.t.Helper()
	p.Say("something to sign")
	if got := p.Line(); got != "right" {
		b.t.Errorf("a signature is %q", got)
	}
}

// TestPKCS11Isolation: a user who knows every frame and handle of another one sees
// nothing of what is the other's, does nothing to it, and does not hold it up.
func TestPKCS11Isolation(t *testing.T) {
	b := bootTokens(t)
	before := b.holdings()
	kept := b.Start(As{User: Alice}, pkcs11Program, "keep", "alice-1")
	frames := kept.Line()
	signing := b.Start(As{User: Alice}, pkcs11Program, "sign", "alice-1")
	b.signs(signing)

	for user, want := range map[string]string{Bob: "bob-1", Carol: "nothing: no token", "root": "nothing: no token", "nobody": "nothing: no token"} {
		got := strings.TrimSpace(b.Must(b.Run(As{User: user}, pkcs11Program, "pry", frames)))
		if got != want && !strings.HasPrefix(got, want+" ") {
			t.Errorf("%s sees %q, not %q", user, got, want)
		}
	}
	// Another process of hers sees her keys and not what is of the first one's session.
	if got := strings.TrimSpace(b.Must(b.Run(As{User: Alice}, pkcs11Program, "pry", withoutDestroy(frames)))); got != "alice-1" {
		t.Errorf("another process of alice sees %q", got)
	}
	b.signs(signing)
	// With her frames he may have destroyed what has her numbers among his own.
	b.Must(b.Run(As{User: Bob}, pkcs11Program, "make", "bob-2"))
	b.Must(b.Run(As{User: Bob}, pkcs11Program, "cut", "60"))
	b.signs(signing)

	kept.Say("die")
	b.eventually("the killed one's session is closed", func() bool { return b.pkcs11("clients") == 1 && b.pkcs11("sessions lent") == 0 })
	b.signs(signing)
	signing.End()
	b.unused()
	b.eventually("the goroutines end", func() bool { return b.holdings().goroutines <= before.goroutines+10 })
}

// withoutDestroy leaves out the frames that a process of the same user may send.
func withoutDestroy(frames string) string {
	all := strings.Split(frames, ",")
	return strings.Join(all[:6], ",")
}

// TestPKCS11Crowd: more than 10,000 connections with a session each, of as many users as
// that takes, cost the token nothing and the daemon little, and others are served.
func TestPKCS11Crowd(t *testing.T) {
	b := bootTokens(t)
	before := b.holdings()
	signing := b.Start(As{User: Alice}, pkcs11Program, "sign", "alice-1")
	held := 0
	var all []*Process
	for i := range crowdUsers {
		p := b.Start(As{}, asNobody(20_000+i, "--groups", "accounting", pkcs11Program, "hold", strconv.Itoa(crowdTries))...)
		all = append(all, p)
		n, err := strconv.Atoi(p.Line())
		if err != nil || n != crowdEach {
			t.Fatalf("user %d holds %d connections, %v; want %d", i, n, err, crowdEach)
		}
		held += n
	}
	for i := range 3 { // strangers have no token, and no more than their share
		p := b.Start(As{}, asNobody(30_000+i, "--clear-groups", pkcs11Program, "hold", "10")...)
		all = append(all, p)
		if got := p.Line(); got != "0" {
			t.Errorf("a stranger has %s sessions", got)
		}
	}
	during := b.holdings()
	t.Logf("%d connections with a session: %+v before, %+v with them, the token has %v idle", held, before, during, b.pkcs11("sessions idle"))
	if n := b.pkcs11("client_sessions"); held < 10_000 || int(n) != held+1 {
		t.Errorf("%d connections, and %v sessions", held, n)
	}
	if n := b.pkcs11("sessions lent") + b.pkcs11("sessions parked"); n != 0 {
		t.Errorf("idle clients have %v sessions of the token", n)
	}
	const most = 32 // KiB for each
	if each := (during.resident - before.resident) / held; each > most {
		t.Errorf("%d connections cost %d KiB each", held, each)
	}
	b.signs(signing)
	for _, p := range all {
		p.End()
	}
	b.signs(signing)
	signing.End()
	b.unused()
	b.eventually("the goroutines end", func() bool { return b.holdings().goroutines <= before.goroutines+10 })
}
