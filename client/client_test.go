package client_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/client"
)

// TestRestart: a call that meets a daemon on its way down waits for the next one,
// and one that meets nobody at all does not.
func TestRestart(t *testing.T) {
	path, remove, err := socketPath()
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	dial := func() *client.Client {
		c, err := client.New(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	unreachable := func(err error) bool {
		e, ok := errors.AsType[*client.Error](err)
		return ok && e.Reason == client.ReasonUnreachable && strings.Contains(e.Message, path) && e.Hint != ""
	}
	patient, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := dial().Encrypt(patient, "payments", nil, nil); !unreachable(err) || patient.Err() != nil {
		t.Errorf("nobody was ever there: %v", err)
	}

	daemon := &fake{}
	stop, err := daemon.serve(path)
	if err != nil {
		t.Fatal(err)
	}
	c := dial()
	for range 3 {
		if _, err := c.Encrypt(t.Context(), "payments", []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
		stop()
		result := make(chan error, 1)
		go func() {
			_, err := c.Encrypt(t.Context(), "payments", []byte("x"), nil)
			result <- err
		}()
		if stop, err = daemon.serve(path); err != nil {
			t.Fatal(err)
		}
		if err := <-result; err != nil {
			t.Errorf("across a restart: %v", err)
		}
	}

	stop()
	brief, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Encrypt(brief, "payments", nil, nil); !unreachable(err) || brief.Err() == nil {
		t.Errorf("nobody was there any more: %v, with the deadline %v", err, brief.Err())
	}
}

// TestBatches: what does not fit into one request goes in several, and the results
// are those of the items in their order.
func TestBatches(t *testing.T) {
	path, remove, err := socketPath()
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	daemon := &fake{}
	stop, err := daemon.serve(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, test := range []struct {
		items, size int
		largest     int64
	}{{1, 1, 1}, {300, 1, 128}, {100, 6144, 39}, {3, 200 << 10, 1}} {
		daemon.largest.Store(0)
		items := make([]client.ToEncrypt, test.items)
		for i := range items {
			items[i] = client.ToEncrypt{Key: "payments", Plaintext: bytes.Repeat([]byte{byte(i)}, test.size)}
		}
		items[test.items/2].Key = "salaries"
		results := c.EncryptBatch(t.Context(), items)
		if len(results) != test.items || daemon.largest.Load() != test.largest {
			t.Fatalf("%+v: %d results, the largest batch had %d items", test, len(results), daemon.largest.Load())
		}
		for i, result := range results {
			if failed := i == test.items/2; failed != (result.Err != nil) || failed == (result.Value != nil) {
				t.Fatalf("%+v, item %d: %+v", test, i, result)
			}
		}
	}
	if none := c.EncryptBatch(t.Context(), nil); len(none) != 0 {
		t.Errorf("no items have %d results", len(none))
	}

	stop()
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for i, result := range c.EncryptBatch(short, make([]client.ToEncrypt, 200)) {
		if result.Err == nil {
			t.Fatalf("item %d succeeded without a daemon", i)
		}
	}
}
