package bench

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// upstreams are how long the KMS takes by itself.
var upstreams = []time.Duration{0, 5 * time.Millisecond, 25 * time.Millisecond}

// broker is a daemon before an emulated KMS in a process of its own, and both ways
// to it.
type broker struct {
	daemon *stage.Daemon
	emu    *emulatorProcess
	direct *sdkPool
	client *client.Client
	socket string
	key    stage.Key
}

func newBroker(b *testing.B, before func(s *stage.Stage)) *broker {
	b.Helper()
	emu := startEmulator(b)
	s := stage.New(b, stage.Options{Endpoint: emu.url})
	// Else the broker keeps to the quotas of an account, and the emulator does not.
	s.Configure("[kms.regions."+stage.OtherRegion+"]",
		"[kms.quota]\ncrypto = 100000\n\n[kms.regions."+stage.OtherRegion+"]")
	if before != nil {
		before(s)
	}
	r := &broker{daemon: s.Start(), emu: emu, socket: s.Application(), key: s.Import("app-1")}
	var err error
	if r.client, err = client.New(s.Application()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.client.Close() })
	r.direct = newSDKPool(b, emu.url)
	return r
}

var plaintext = make([]byte, 32)

func (r *broker) viaBroker() side {
	return side{"broker", func(ctx context.Context) error {
		_, err := r.client.Encrypt(ctx, "app-1", plaintext, nil)
		return err
	}}
}

func (r *broker) viaSDK() side {
	return side{"direct", func(context.Context) error {
		return r.direct.encrypt(r.key.KeyID, plaintext)
	}}
}

// empty is a call that the broker answers out of its head.
func (r *broker) empty() side {
	return side{"empty", func(ctx context.Context) error {
		_, err := r.client.WhoAmI(ctx)
		return err
	}}
}

// BenchmarkEncrypt compares an encryption through the broker, with policy and
// audit, with the SDK calling the same KMS directly through a transport with the
// same settings. Clients, daemon and KMS share this machine. Where a direct run
// keeps it busy ("direct-busy" near 1), nobody waits for the KMS, and the ratio is
// one of processor time, in which the broker's hop must show.
func BenchmarkEncrypt(b *testing.B) {
	r := newBroker(b, nil)
	for _, upstream := range upstreams {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("upstream=%v/callers=%d", upstream, callers), func(b *testing.B) {
				r.emu.delay(b, upstream)
				compare(b, callers, r.viaSDK(), r.viaBroker())
				for _, s := range []side{r.viaSDK(), r.viaBroker()} {
					before := readProcessors(b)
					rate(b, callers, s)
					b.ReportMetric(readProcessors(b).busySince(before), s.name+"-busy")
				}
			})
		}
	}
}

// BenchmarkAddedLatency tells how much later an answer comes through the broker, in
// times of an empty gRPC call on the same socket. A call that comes after a pause
// takes longer, because threads and processors sleep; so the empty ones come as far
// apart as the KMS makes the others. "hot" is one that comes at once.
func BenchmarkAddedLatency(b *testing.B) {
	r := newBroker(b, nil)
	for _, upstream := range upstreams {
		b.Run(fmt.Sprintf("upstream=%v", upstream), func(b *testing.B) {
			r.emu.delay(b, upstream)
			var direct, through, empty, added []float64
			for round := range rounds + 1 {
				d, t, e := latency(b, r.viaSDK(), 0), latency(b, r.viaBroker(), 0), 0.0
				e = latency(b, r.empty(), time.Duration(d)*time.Microsecond)
				if round > 0 { // the first warms up
					direct, through, empty, added = append(direct, d), append(through, t), append(empty, e), append(added, (t-d)/e)
				}
			}
			b.ReportMetric(median(direct), "direct-us")
			b.ReportMetric(median(through), "broker-us")
			b.ReportMetric(median(empty), "empty-us")
			b.ReportMetric(latency(b, r.empty(), 0), "hot-us")
			b.ReportMetric(median(added), "added/empty")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// latency is the mean of one caller that pauses before each call, in microseconds.
func latency(b *testing.B, s side, pause time.Duration) float64 {
	b.Helper()
	var calls int
	var total time.Duration
	for start := time.Now(); time.Since(start) < turn; calls++ {
		time.Sleep(pause)
		began := time.Now()
		if err := s.do(b.Context()); err != nil {
			b.Fatalf("%s: %v", s.name, err)
		}
		total += time.Since(began)
	}
	return float64(total.Microseconds()) / float64(calls)
}

// BenchmarkGrowth tells what an operation costs the daemon in processor time as
// callers and keys become more.
func BenchmarkGrowth(b *testing.B) {
	for _, keys := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("keys-%d", keys), func(b *testing.B) {
			r := newBroker(b, func(s *stage.Stage) { addKeys(b, s, keys-1) })
			sealed, err := r.client.Encrypt(b.Context(), "app-1", plaintext, nil)
			if err != nil {
				b.Fatal(err)
			}
			decrypt := side{"decrypt", func(ctx context.Context) error {
				_, err := r.client.Decrypt(ctx, sealed.CiphertextBlob, nil)
				return err
			}}
			for _, callers := range []int{1, 16, 256} {
				b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
					for _, s := range []side{r.viaBroker(), decrypt} {
						rate(b, callers, s)
						begin, began := processorTime(b, r.daemon.PID()), time.Now()
						perSecond := rate(b, callers, s)
						spent := processorTime(b, r.daemon.PID()) - begin
						calls := perSecond * time.Since(began).Seconds()
						b.ReportMetric(float64(spent.Microseconds())/calls, s.name+"-cpu-us")
						b.ReportMetric(perSecond, s.name+"/s")
					}
					b.ReportMetric(0, "ns/op")
				})
			}
		})
	}
}

// addKeys puts keys into the registry that no KMS has.
func addKeys(b *testing.B, s *stage.Stage, n int) {
	b.Helper()
	if err := os.MkdirAll(s.Path("state"), 0o700); err != nil {
		b.Fatal(err)
	}
	keys, err := keyring.Open(s.Path("state"))
	if err != nil {
		b.Fatal(err)
	}
	defer keys.Close()
	for i := range n {
		err := keys.Add(&keyring.Key{
			Name: fmt.Sprintf("app-x%d", i), Region: stage.Region, CreatedAt: time.Now(),
			CMKs: []keyring.CMK{{KeyID: fmt.Sprintf("key-%d", i), Region: stage.Region, State: kmsapi.Enabled}},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
