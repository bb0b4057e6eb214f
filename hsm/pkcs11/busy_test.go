package pkcs11

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// openWait is more time than anything here takes.
const openWait = time.Minute

func TestBusyDeviceIsAskedAgain(t *testing.T) {
	_, shim, config := newShim(t)
	config.MaxSessions = 1
	token := openToken(t, config)
	key := generate(t, token)
	_, spki := newRSA(t, 2048)
	wrap := hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki}
	for _, test := range []struct {
		fault string
		call  func() error
	}{
		{"C_WrapKey before 0x80000041", func() error { _, err := token.Wrap(t.Context(), wrap); return err }},
		{"C_FindObjectsInit before 0x80001604", func() error { _, err := token.Keys(t.Context()); return err }},
		// The session that was busy has been closed, so this one is opened.
		{"C_OpenSession before 0xB1", func() error { return token.Health(t.Context()) }},
		{"C_GenerateKey before 0x80000041", func() error {
			_, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"})
			return err
		}},
	} {
		t.Run(test.fault, func(t *testing.T) {
			shim.arm(t, "%s", test.fault)
			if err := test.call(); err != nil {
				t.Error(err)
			}
			if shim.armed() {
				t.Error("the device was not asked")
			}
			onSession(t, token, func(s *session) error { s.tainted = true; return nil })
		})
	}
	if n := publicKeys(t, token); n != 0 {
		t.Errorf("%d public keys are left", n)
	}
}

// Destroying is not repeated: had the first attempt worked, the second would
// find nothing and the caller would not learn which.
func TestBusyDestructionIsNotRepeated(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	key := generate(t, token)
	shim.arm(t, "C_DestroyObject before 0x80000041")
	wantReason(t, token.DestroyKey(t.Context(), key.ID), hsm.Busy)
	if n := shim.calls(t, "C_DestroyObject"); n != 1 {
		t.Errorf("tried %d times", n)
	}
}

func TestBusyForTooLong(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	shim.arm(t, "C_FindObjectsInit always 0x80000041")
	defer shim.disarm()
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := token.Keys(ctx)
		wantReason(t, err, hsm.Busy)
		if ctx.Err() != nil {
			t.Error("the answer came after the deadline")
		}
	})
	t.Run("no deadline", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		before := shim.calls(t, "C_FindObjectsInit")
		done := make(chan error, 1)
		go func() { _, err := token.Keys(ctx); done <- err }()
		for shim.calls(t, "C_FindObjectsInit") < before+2 {
			if len(done) > 0 {
				t.Fatalf("given up at once: %v", <-done)
			}
			runtime.Gosched()
		}
		cancel()
		wantReason(t, <-done, hsm.Busy)
	})
}
