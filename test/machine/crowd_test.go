//go:build root

package machine

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

const toCrowd = `
[[grant]]
keys       = ["crowd"]
operations = ["encrypt"]
groups     = ["accounting"]

[[grant]]
keys       = ["payments"]
operations = ["encrypt"]
users      = ["alice"]
`

// crowd is 42 users with a grant who open more connections than they may.
const (
	crowdUsers = 42
	crowdEach  = 256
	crowdTries = crowdEach + 4
)

// asNobody has a program run under a uid that no account has, as the uids of user
// namespaces are.
func asNobody(uid int, groupsAndProgram ...string) []string {
	id := strconv.Itoa(uid)
	return append([]string{"setpriv", "--reuid", id, "--regid", id}, groupsAndProgram...)
}

// TestIdleConnections: more than 10,000 idle connections cost the daemon a bounded
// amount of memory, which it gives back, and others are served meanwhile.
func TestIdleConnections(t *testing.T) {
	b := BootBroker(t, toCrowd)
	b.installCaller()
	b.Import("payments")
	before := b.holdings()
	held := 0
	var all []*Process
	for i := range crowdUsers {
		p := b.Start(As{}, asNobody(20_000+i, "--groups", "accounting", callerProgram, "hold", strconv.Itoa(crowdTries))...)
		all = append(all, p)
		n, err := strconv.Atoi(p.Line())
		if err != nil || n != crowdEach {
			t.Fatalf("user %d holds %d connections, %v; want %d", i, n, err, crowdEach)
		}
		held += n
	}
	during := b.holdings()
	t.Logf("%d idle connections: %+v before, %+v with them", held, before, during)
	const most = 48 // KiB for each
	if each := (during.resident - before.resident) / held; held < 10_000 || each > most {
		t.Errorf("%d connections cost %d KiB each", held, each)
	}
	if each := (during.goroutines - before.goroutines) / held; each > 3 {
		t.Errorf("a connection has %d goroutines", each)
	}
	b.Must(b.Encrypt(As{User: Alice}, "payments"))
	for _, p := range all {
		p.End()
	}
	b.eventually("the goroutines end", func() bool { return b.holdings().goroutines <= before.goroutines+10 })
}

// TestStrangersHaveOneShare: users without a grant have a share together, however
// many they are.
func TestStrangersHaveOneShare(t *testing.T) {
	b := BootBroker(t, toCrowd)
	b.installCaller()
	b.Import("payments")
	held := 0
	for i := range 6 {
		p := b.Start(As{}, asNobody(30_000+i, "--clear-groups", callerProgram, "hold", strconv.Itoa(crowdEach))...)
		n, err := strconv.Atoi(p.Line())
		if err != nil {
			t.Fatal(err)
		}
		held += n
	}
	const most = 1024
	if held != most {
		t.Errorf("six strangers hold %d connections, want %d", held, most)
	}
	b.Must(b.Encrypt(As{User: Alice}, "payments"))
	b.Refused(b.Encrypt(As{User: "nobody"}, "payments"), 3, "closed the connection")
	if refused := b.metric(`kmsbroker_refused_total{door="application",what="connection"}`); refused < 6*crowdEach-most {
		t.Errorf("%v connections are counted as refused", refused)
	}
}

// TestSlowAndLarge: who sends a byte a second, or says that much will come, holds
// his own places and nobody else's.
func TestSlowAndLarge(t *testing.T) {
	b := BootBroker(t, toCrowd)
	b.installCaller()
	b.Import("payments")
	before := b.holdings()
	slow := b.Start(As{User: Bob}, callerProgram, "drip", "250")
	if got := slow.Line(); got != "250" {
		t.Fatalf("%s calls were begun", got)
	}
	for range 5 {
		b.Must(b.Encrypt(As{User: Alice}, "payments"))
	}
	during := b.holdings()
	t.Logf("250 slow calls: %+v before, %+v with them", before, during)
	if grown := during.resident - before.resident; grown > 32<<10 {
		t.Errorf("250 slow calls cost %d KiB", grown)
	}
	slow.End()
	if got := strings.TrimSpace(b.Must(b.Run(As{User: Bob}, callerProgram, "oversize"))); got != "ResourceExhausted" {
		t.Errorf("a message of 2 GiB: %s", got)
	}
}

// TestFlood: a user who floods the daemon is told to slow down, and another gets
// all that she asks for.
func TestFlood(t *testing.T) {
	b := BootBroker(t, toCrowd)
	b.installCaller()
	b.Import("payments")
	b.Import("crowd")
	before := b.holdings()
	flood := b.Start(As{User: Bob}, callerProgram, "flood", "crowd", "700")
	if got := flood.Line(); got != "there" {
		t.Fatal(got)
	}
	quiet := b.Start(As{User: Alice}, callerProgram, "keep", "payments")
	for i := range 200 {
		quiet.Say("go")
		if got := quiet.Line(); got != allowed {
			t.Fatalf("call %d beside a flood: %s", i, got)
		}
	}
	during := b.holdings()
	flood.stdin.Close()
	counts := strings.Fields(flood.Line())
	flood.End()
	quiet.End()
	t.Logf("the flood: %v succeeded, were refused, and failed; %+v before, %+v with it", counts, before, during)
	if counts[0] == "0" || counts[1] == "0" || counts[2] != "0" {
		t.Errorf("the flood ended with %v", counts)
	}
	if grown := during.resident - before.resident; grown > 128<<10 {
		t.Errorf("the flood costs %d KiB", grown)
	}
}

// holdings is what the daemon holds.
type holdings struct {
	resident   int // KiB
	goroutines int
}

func (b *Broker) holdings() holdings {
	b.t.Helper()
	pid := b.daemonPID()
	var h holdings
	for line := range strings.Lines(b.Must(b.Exec(nil, "cat", "/proc/"+pid+"/status"))) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &h.resident); err == nil {
			break
		}
	}
	h.goroutines = int(b.metric("go_goroutines"))
	return h
}

// metric reads one series.
func (b *Broker) metric(series string) float64 {
	b.t.Helper()
	text := b.Must(b.Exec(nil, callerProgram, "metrics"))
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.t.Fatal(err)
			}
			return n
		}
	}
	b.t.Fatalf("there is no series %s in:\n%s", series, text)
	return 0
}

// eventually waits for what no event tells of.
func (b *Broker) eventually(what string, happened func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !happened(); {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not within 20 s", what)
		}
	}
}
