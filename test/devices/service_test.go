package devices

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// TestSlowService: every call works with DPoD's own latency, also the one that finds
// the token of the service expired. That costs time and no process.
func TestSlowService(t *testing.T) {
	d := newDevice(t, hsmsim.DPoD)
	b := supervise(t, d, 3*time.Second)
	pid := b.ready(t, 0)
	token := b.Token()
	id := hsm.NewKeyID()
	for _, step := range []struct {
		name string
		call func(context.Context) error
	}{
		{"generate", func(ctx context.Context) error {
			_, err := token.GenerateKey(ctx, hsm.KeySpec{ID: id, Label: "slow"})
			return err
		}},
		{"check value", func(ctx context.Context) error { _, err := token.CheckValue(ctx, id); return err }},
		{"look", func(ctx context.Context) error { _, err := token.Key(ctx, id); return err }},
		{"list", func(ctx context.Context) error { _, err := token.Keys(ctx); return err }},
		{"wrap", func(ctx context.Context) error {
			_, err := token.Wrap(ctx, hsm.WrapRequest{Key: id, Algorithm: hsm.OAEPSHA256, PublicKey: wrappingKey(t)})
			return err
		}},
		{"seal", func(ctx context.Context) error { _, err := token.SealKey(ctx, id); return err }},
		{"health", token.Health},
		{"destroy", func(ctx context.Context) error { return token.DestroyKey(ctx, id) }},
	} {
		d.JWTExpired()
		if err := step.call(t.Context()); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		if d.Pending("jwt") {
			t.Errorf("%s did not meet the expired token", step.name)
		}
	}
	if status := b.Status(); status.Restarts != 0 || status.PID != pid {
		t.Errorf("after slow calls: %+v", status)
	}
}

// TestSlotsComeAndGo: a service that appears is found by the next process, and one
// that was deleted is said to be away and not wrongly named.
func TestSlotsComeAndGo(t *testing.T) {
	d := newDevice(t, hsmsim.DPoD, hsmsim.Set("latency_min_ms", "0"), hsmsim.Set("latency_max_ms", "1"))
	d.Hide(d.Label)
	b := supervise(t, d, 5*time.Second)
	if status := b.await(t, backend.Restarting); !errors.Is(status.Err, hsm.NotFound) || !strings.Contains(status.Err.Error(), d.Label) {
		t.Errorf("a hidden service: %+v", status)
	}
	d.Show(d.Label)
	b.ready(t, 0)
	generate(t, b.Token())
	b.stop()

	logins := d.Count("C_Login")
	d.Delete(d.Label)
	if _, err := d.open(t); !errors.Is(err, hsm.NotFound) || !strings.Contains(err.Error(), "CKR_TOKEN_NOT_PRESENT") {
		t.Errorf("a deleted service: %v", err)
	}
	if n := d.Count("C_Login") - logins; n != 0 {
		t.Errorf("%d logins to a deleted service", n)
	}
}
