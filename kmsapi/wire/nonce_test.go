package wire

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestNonceTableIsBounded(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	table := newNonceTable(start)
	table.limit = 10
	for i := range 100 {
		at := start.Add(time.Duration(i) * time.Second)
		if err := table.use("key", fmt.Sprint(i), at, at); err != nil {
			t.Fatalf("nonce %d: %v", i, err)
		}
	}
	log := table.logs["key"]
	if len(log.seen) != 10 || len(log.bySecond) != 10 {
		t.Errorf("%d nonces of %d seconds are remembered, want 10", len(log.seen), len(log.bySecond))
	}
	now := start.Add(99 * time.Second)
	if err := table.use("key", "0", start, now); !errors.Is(err, errTimeExpired) {
		t.Errorf("a forgotten nonce gives %v, want %v", err, errTimeExpired)
	}
	if err := table.use("key", "95", start.Add(95*time.Second), now); !errors.Is(err, errNonceUsed) {
		t.Errorf("a remembered nonce gives %v, want %v", err, errNonceUsed)
	}
	if err := table.use("other", "95", start, now); err != nil {
		t.Errorf("another access key suffers: %v", err)
	}
}

func TestNonceTableForgetsStale(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	table := newNonceTable(start)
	if err := table.use("key", "a", start, start); err != nil {
		t.Fatal(err)
	}
	later := start.Add(Window + time.Second)
	if err := table.use("key", "b", later, later); err != nil {
		t.Fatal(err)
	}
	if n := len(table.logs["key"].seen); n != 1 {
		t.Errorf("%d nonces are remembered, want 1", n)
	}
}

// TestNonceTableForgetsAccessKeys that were not used within the window, so that
// keys which were revoked leave nothing behind.
func TestNonceTableForgetsAccessKeys(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	table := newNonceTable(start)
	for _, id := range []string{"old", "other"} {
		if err := table.use(id, "a", start, start); err != nil {
			t.Fatal(err)
		}
	}
	held := table.logs["old"]
	later := start.Add(Window + time.Second)
	if err := table.use("other", "b", later, later); err != nil {
		t.Fatal(err)
	}
	if err := table.use("new", "a", later, later); err != nil {
		t.Fatal(err)
	}
	if len(table.logs) != 2 || table.logs["old"] != nil {
		t.Errorf("logs of %d access keys are kept, want those of other and new", len(table.logs))
	}
	if err := held.use(hashNonce("b"), later.Unix(), 0, 10); !errors.Is(err, errDropped) {
		t.Errorf("who still had the log used it: %v", err)
	}
}
