package devices

import (
	"errors"
	"sync"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// TestFewSessions: many callers share what the device admits, and no session is
// asked for that it would refuse.
func TestFewSessions(t *testing.T) {
	d := newDevice(t, hsmsim.Luna, hsmsim.Set("max_sessions", "3"))
	token := d.mustOpen(t)
	spki := wrappingKey(t)
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			id := hsm.NewKeyID()
			if _, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "few"}); err != nil {
				t.Error(err)
				return
			}
			if _, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: id, Algorithm: hsm.OAEPSHA256, PublicKey: spki}); err != nil {
				t.Error(err)
			}
			if err := token.DestroyKey(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	opened := 0
	for _, call := range d.Calls() {
		if call.Function != "C_OpenSession" {
			continue
		}
		if opened++; call.Answer != "0x00000000" {
			t.Errorf("a session was refused: %s", call.Answer)
		}
	}
	if opened != 3 {
		t.Errorf("%d sessions were opened", opened)
	}
}

// TestFullToken: a token without room says so, each in its own way, and takes keys
// again after one was destroyed.
func TestFullToken(t *testing.T) {
	for dress, code := range map[hsmsim.Dress]string{
		hsmsim.Luna: "CKR_MAX_OBJECT_COUNT_EXCEEDED",
		hsmsim.DPoD: "CKR_LICENSE_CAPACITY_EXCEEDED",
	} {
		token := newDevice(t, dress, hsmsim.Set("max_objects", "2")).mustOpen(t)
		first := generate(t, token)
		generate(t, token)
		third := hsm.KeySpec{ID: hsm.NewKeyID(), Label: "third"}
		_, err := token.GenerateKey(t.Context(), third)
		if e, ok := errors.AsType[*hsm.Error](err); !ok || e.Reason != hsm.StorageFull || e.Code != code {
			t.Errorf("%s: a full token: %v", dress, err)
		}
		if err := token.DestroyKey(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		if _, err := token.GenerateKey(t.Context(), third); err != nil {
			t.Errorf("%s: with room: %v", dress, err)
		}
	}
}
