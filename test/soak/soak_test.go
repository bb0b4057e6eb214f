// Package soak keeps many callers busy with a broker whose KMS misbehaves, and
// then counts what is left.
package soak

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/faults"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

const (
	callers = 64
	// deadline of each call.
	deadline = 20 * time.Second
)

// TestSoak: 64 callers encrypt, decrypt, import, rotate, disable and re-import
// while faults come and go at random. KMSBROKER_SOAK says for how long, and
// KMSBROKER_SEED repeats a run's faults.
func TestSoak(t *testing.T) {
	length, seed := parameters(t, time.Minute)
	t.Logf("%v with KMSBROKER_SEED=%d", length, seed)
	idle := idleGoroutines(t)

	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	run := &run{stage: s, t: t, failed: map[string]int{}}
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var working sync.WaitGroup
	working.Go(func() { run.misbehave(ctx, rand.New(rand.NewPCG(seed, 0))) })
	people := make([]*caller, callers)
	for i := range people {
		people[i] = run.caller(i, rand.New(rand.NewPCG(seed, uint64(i)+1)))
		working.Go(func() { people[i].work(ctx) })
	}
	working.Wait()

	run.setFaults(faults.Plan{})
	// An endpoint that failed is left alone for up to half a minute.
	await(t, "KMS is used again", people[0].reachesKMS)
	for _, c := range people {
		c.settle()
		c.close()
	}
	run.report(people)
	run.compare()
	// Idle connections to KMS are given up after a few seconds.
	await(t, "connections to KMS are closed", func() bool { return s.Connections() == 0 })
	if n := daemon.Goroutines(); n > idle {
		t.Errorf("the daemon has %d goroutines at the end, an idle one %d", n, idle)
	}
}

func parameters(t *testing.T, usual time.Duration) (length time.Duration, seed uint64) {
	t.Helper()
	length, seed = usual, rand.Uint64()
	var err error
	if text := os.Getenv("KMSBROKER_SOAK"); text != "" {
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("KMSBROKER_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return length, seed
}

// idleGoroutines is how many a daemon has that was asked for little.
func idleGoroutines(t *testing.T) int {
	t.Helper()
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil)
	await(t, "connections to KMS are closed", func() bool { return s.Connections() == 0 })
	return daemon.Goroutines()
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// run is what the callers share.
type run struct {
	stage *stage.Stage
	t     *testing.T

	mu     sync.Mutex
	failed map[string]int // by reason
}

// misbehave changes what goes wrong every second or so, and lets it rest between.
func (r *run) misbehave(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		r.setFaults(randomPlan(random))
		pause := time.Duration(300+random.IntN(1200)) * time.Millisecond
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func randomPlan(random *rand.Rand) faults.Plan {
	if random.IntN(3) == 0 {
		return faults.Plan{}
	}
	kinds := []faults.Kind{
		faults.Latency, faults.Throttling, faults.FlowControl, faults.Internal, faults.Unavailable, faults.HTML, faults.Reset,
	}
	plan := faults.Plan{Seed: random.Uint64()}
	for range 1 + random.IntN(3) {
		probability := []float64{0.05, 0.3, 1}[random.IntN(3)]
		rule := faults.Rule{Kind: kinds[random.IntN(len(kinds))], Probability: &probability}
		switch rule.Kind {
		case faults.Latency:
			rule.Delay = faults.Duration(time.Duration(random.IntN(500)+1) * time.Millisecond)
		case faults.Throttling, faults.FlowControl:
			// What is refused for a quota was not done.
		default:
			rule.After = random.IntN(2) == 0
		}
		plan.Rules = append(plan.Rules, rule)
	}
	return plan
}

func (r *run) setFaults(plan faults.Plan) {
	body, err := json.Marshal(plan)
	if err != nil {
		r.t.Error(err)
		return
	}
	req, err := http.NewRequest(http.MethodPut, r.stage.EndpointURL()+"/-/faults", bytes.NewReader(body))
	if err != nil {
		r.t.Error(err)
		return
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(resp.Body)
		r.t.Errorf("set faults: %s: %s", resp.Status, text)
	}
}

// expected are the kinds of failure that a KMS out of order may cause, besides the
// caller's own deadline.
var expected = []codes.Code{codes.Unavailable, codes.ResourceExhausted, codes.FailedPrecondition, codes.NotFound}

// judge records a failure and refuses one that is not typed.
func (r *run) judge(what string, err error) {
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Code != codes.DeadlineExceeded && (e.Reason == "" || !slices.Contains(expected, e.Code)) {
		r.t.Errorf("%s: %v (%+v)", what, err, e)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed[cmp.Or(e.Reason, e.Code.String())]++
}

func (r *run) report(people []*caller) {
	done, blobs, keys := 0, 0, 0
	for _, c := range people {
		done, blobs, keys = done+c.done, blobs+len(c.blobs), keys+len(c.keys)
	}
	r.t.Logf("%d calls worked, failures by reason: %v; %d keys, %d blobs opened at the end", done, r.failed, keys, blobs)
}

// compare holds the registry against what exists in the cloud: no CMK is unknown,
// none is missing, none was made twice, and no two hold one material.
func (r *run) compare() {
	resp, err := http.Get(r.stage.EndpointURL() + "/-/keys")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var made []struct {
		KeyID    string `json:"key_id"`
		State    string `json:"state"`
		Material string `json:"material"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil {
		r.t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	conn, err := client.Dial(r.stage.Control())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	list, err := v1.NewControlClient(conn).ListKeys(r.t.Context(), &v1.ListKeysRequest{})
	if err != nil {
		r.t.Fatal(conn.Error(err))
	}
	if len(list.GetUnfinished()) > 0 {
		r.t.Errorf("unfinished: %v", list.GetUnfinished())
	}
	known := map[string]bool{}
	for _, key := range list.GetKeys() {
		for _, cmk := range key.GetCmks() {
			known[cmk.GetKeyId()] = true
		}
	}
	materials := map[string]string{}
	for _, cmk := range made {
		if !known[cmk.KeyID] {
			r.t.Errorf("CMK %s in state %s is lost: no key has it", cmk.KeyID, cmk.State)
		}
		if other, twice := materials[cmk.Material]; twice && cmk.Material != "" {
			r.t.Errorf("CMKs %s and %s hold the same material", cmk.KeyID, other)
		}
		materials[cmk.Material] = cmk.KeyID
		delete(known, cmk.KeyID)
	}
	for id := range known {
		r.t.Errorf("the broker knows CMK %s, and KMS does not", id)
	}
	if secret, other := r.stage.Objects(); secret != len(made) || other != 0 {
		r.t.Errorf("the token holds %d secret keys and %d other objects for %d CMKs", secret, other, len(made))
	}
	r.t.Logf("%d CMKs, all known, all different", len(made))
}

func keyName(caller, n int) string { return fmt.Sprintf("app-%d-%d", caller, n) }
