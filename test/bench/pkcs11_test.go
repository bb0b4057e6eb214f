package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/test/application"
	"github.com/kmsbroker/kmsbroker/test/application/library"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// pkcs11Tasks are what applications are told to do.
var pkcs11Tasks = library.Tasks{"open": openTask, "measure": measureTask}

const (
	pkcs11Key     = "bench"
	pkcs11Signers = 8
	pkcs11Idle    = 200 // clients
)

// BenchmarkPKCS11 compares the broker with p11-kit's own server on the same SoftHSM
// token. The applications are the same, processes that load p11-kit-client.so. Ratios are
// ours to theirs: of the time of a call for one client, of the signatures per second for
// eight. Beside those, "processor-ratio" is of the calls in a second of processor time,
// of applications and servers together, which other users of the machine do not change.
func BenchmarkPKCS11(b *testing.B) {
	s := stage.New(b, stage.Options{})
	ours := s.Broker()
	a := dialPKCS11(b, s.Path("run/pkcs11.sock"), ours)
	if err := a.Generate(pkcs11Key, 2048); err != nil {
		b.Fatal(err)
	}
	theirs := stage.P11KitServer(b, s.HSM)
	for _, m := range []struct {
		name    string
		clients int
	}{
		{"C_GetSessionInfo", 1}, {"C_GenerateRandom", 1}, {"C_Sign", 1}, {"C_Sign", pkcs11Signers},
	} {
		b.Run(fmt.Sprintf("%s/clients=%d", m.name, m.clients), func(b *testing.B) {
			comparePKCS11(b, m.name, startAll(b, theirs, m.clients), startAll(b, ours, m.clients))
		})
	}
}

// BenchmarkPKCS11Memory is of 200 clients that have signed once and stay connected: what
// they take, and as "total" what all processes of the server do.
func BenchmarkPKCS11Memory(b *testing.B) {
	s := stage.New(b, stage.Options{})
	ours := s.Broker()
	if err := dialPKCS11(b, s.Path("run/pkcs11.sock"), ours).Generate(pkcs11Key, 2048); err != nil {
		b.Fatal(err)
	}
	theirs := stage.P11KitServer(b, s.HSM)
	total := [2]float64{}
	taken := [2]float64{}
	for i, side := range []struct {
		stage.PKCS11
		socket string
	}{{ours, s.Path("run/pkcs11.sock")}, {theirs, socketOf(b, theirs)}} {
		before := stage.Memory(b, side.Processes(b))
		for range pkcs11Idle {
			a := dialPKCS11(b, side.socket, side.PKCS11)
			key, err := a.Key(cryptoki.CKO_PRIVATE_KEY, pkcs11Key)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := a.Sign(key, plaintext); err != nil {
				b.Fatal(err)
			}
		}
		after := stage.Memory(b, side.Processes(b))
		total[i], taken[i] = float64(after)/(1<<20), float64(after-before)/(1<<20)
	}
	b.ReportMetric(taken[0], "broker-MiB")
	b.ReportMetric(taken[1], "p11-kit-MiB")
	b.ReportMetric(taken[0]/taken[1], "ratio")
	b.ReportMetric(total[0], "broker-total-MiB")
	b.ReportMetric(total[0]/total[1], "total-ratio")
	b.ReportMetric(0, "ns/op")
}

// dialPKCS11 is a client that stays connected, logged in, until the end.
func dialPKCS11(b *testing.B, socket string, target stage.PKCS11) *application.Application {
	b.Helper()
	calls, conn, err := application.Dial(context.Background(), socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	a := &application.Application{Library: calls, Token: target.Token, PIN: []byte(target.PIN)}
	if err := a.Initialize(); err != nil {
		b.Fatal(err)
	}
	return a
}

// users are applications of a target.
type users struct {
	target    stage.PKCS11
	processes []*library.Process
}

func startAll(b *testing.B, target stage.PKCS11, n int) users {
	b.Helper()
	all := make([]*library.Process, n)
	for i := range all {
		all[i] = library.Start(b, target)
		// One after the other: SoftHSM does not find its token when several processes
		// begin at once, and p11-kit's server makes one of each client.
		if err := all[i].Run("open", nil, nil); err != nil {
			b.Fatalf("%s: %v", target.Name, err)
		}
	}
	return users{target, all}
}

// processorTime is what the applications and their server have used until now.
func (u users) processorTime(b *testing.B) (sum time.Duration) {
	b.Helper()
	for _, pid := range u.target.Processes(b) {
		sum += processorTime(b, pid)
	}
	for _, p := range u.processes {
		sum += processorTime(b, p.PID())
	}
	return sum
}

// comparePKCS11 measures in turns. One client tells how long a call takes, several how
// many there are.
func comparePKCS11(b *testing.B, function string, theirs, ours users) {
	b.Helper()
	var times, rates, theirRates []float64
	measurePKCS11(b, function, theirs) // warm up
	measurePKCS11(b, function, ours)
	before := [2]time.Duration{theirs.processorTime(b), ours.processorTime(b)}
	sums := [2]float64{}
	for range rounds {
		t := measurePKCS11(b, function, theirs)
		o := measurePKCS11(b, function, ours)
		theirRates, rates, times = append(theirRates, t), append(rates, o), append(times, o/t)
		sums[0], sums[1] = sums[0]+t, sums[1]+o
	}
	each := [2]float64{sums[0] / (theirs.processorTime(b) - before[0]).Seconds(), sums[1] / (ours.processorTime(b) - before[1]).Seconds()}
	b.ReportMetric(each[1]/each[0], "processor-ratio")
	b.ReportMetric(median(theirRates), "p11-kit/s")
	b.ReportMetric(median(rates), "broker/s")
	if len(ours.processes) == 1 {
		b.ReportMetric(1/median(times), "time-ratio")
	} else {
		b.ReportMetric(median(times), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// measurePKCS11 has all clients make calls, and returns how many there were in a second.
func measurePKCS11(b *testing.B, function string, clients users) float64 {
	b.Helper()
	calls := make([]float64, len(clients.processes))
	var measuring sync.WaitGroup
	for i, c := range clients.processes {
		measuring.Go(func() {
			if err := c.Run("measure", function, &calls[i]); err != nil {
				b.Errorf("%s: %v", function, err)
			}
		})
	}
	measuring.Wait()
	if b.Failed() {
		b.FailNow()
	}
	sum := 0.0
	for _, n := range calls {
		sum += n
	}
	return sum
}

func openTask(a *application.Application, _ json.RawMessage) (any, error) { return nil, a.Initialize() }

// measureTask makes calls of a function for a turn, and returns how many in a second.
func measureTask(a *application.Application, argument json.RawMessage) (any, error) {
	var function string
	if err := json.Unmarshal(argument, &function); err != nil {
		return nil, err
	}
	do, err := callOf(a, function)
	if err != nil {
		return nil, err
	}
	n, began := 0, time.Now()
	for time.Since(began) < turn {
		if err := do(); err != nil {
			return nil, err
		}
		n++
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

func callOf(a *application.Application, function string) (func() error, error) {
	simple := func(call *cryptoki.Call) func() error {
		return func() error { _, err := a.Do(call); return err }
	}
	switch function {
	case cryptoki.GetSessionInfo.String():
		return simple(application.Call(cryptoki.GetSessionInfo, a.Session)), nil
	case cryptoki.GenerateRandom.String():
		call := application.Call(cryptoki.GenerateRandom, a.Session)
		call.Room.Size = 32
		return simple(call), nil
	default:
		key, err := a.Key(cryptoki.CKO_PRIVATE_KEY, pkcs11Key)
		return func() error { _, err := a.Sign(key, plaintext); return err }, err
	}
}

// socketOf is where p11-kit's server listens.
func socketOf(b *testing.B, target stage.PKCS11) string {
	b.Helper()
	for _, variable := range target.Env {
		var path string
		if n, _ := fmt.Sscanf(variable, "P11_KIT_SERVER_ADDRESS=unix:path=%s", &path); n == 1 {
			return path
		}
	}
	b.Fatal("p11-kit's server has no socket")
	return ""
}
