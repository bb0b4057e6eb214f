package devices

import (
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// TestLongList: a list of a full token takes longer than any call may. It ends
// all the same, on the process that it began on, and meanwhile others get keys.
func TestLongList(t *testing.T) {
	// Each key is four calls of a millisecond at least.
	const keys, callTimeout = 1000, 3 * time.Second
	d := newDevice(t, hsmsim.Luna)
	b := supervise(t, d, callTimeout)
	b.ready(t, 0)
	if _, err := b.Token().GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "first"}); err != nil {
		t.Fatal(err)
	}
	b.stop()
	d.Multiply(keys)

	b = supervise(t, d, callTimeout)
	pid := b.ready(t, 0)
	d.Slow(time.Millisecond)
	begin := time.Now()
	listed := make(chan error, 1)
	var list []hsm.Key
	go func() {
		var err error
		list, err = b.Token().Keys(t.Context())
		listed <- err
	}()
	generated := 0
	for done := false; !done; {
		select {
		case err := <-listed:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
			if _, err := b.Token().GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "more"}); err != nil {
				t.Fatalf("during the list, after %d keys: %v", generated, err)
			}
			generated++
		}
	}
	if len(list) < keys {
		t.Errorf("%d keys are listed, want %d", len(list), keys)
	}
	if now := b.Status().PID; now != pid {
		t.Error("the process was replaced")
	}
	t.Logf("%d keys were listed in %v, and %d made meanwhile", len(list), time.Since(begin), generated)
}
