package pkcs11

import (
	"context"
	"errors"
	"sync"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// TestNothingGoesWhileSomebodyLooks: with a library that needs it, others may look
// while one session searches or reads objects, but no object is removed, and while
// one is removed nobody looks.
func TestNothingGoesWhileSomebodyLooks(t *testing.T) {
	_, spki := newRSA(t, 2048)
	for function, want := range map[string]struct{ look, remove bool }{
		"C_FindObjectsInit":   {look: true},
		"C_GetAttributeValue": {look: true},
		"C_DestroyObject":     {},
		"C_WrapKey":           {look: true, remove: true},
	} {
		t.Run(function, func(t *testing.T) {
			_, shim, config := newShim(t)
			token := openToken(t, config)
			key := generate(t, token)
			looking := new(sync.RWMutex)
			token.pool.guard = apart(looking)
			shim.arm(t, "%s block", function)
			result := make(chan error, 1)
			go func() {
				_, wrapped := token.Wrap(context.Background(), hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki})
				_, read := token.Key(context.Background(), key.ID)
				result <- errors.Join(wrapped, read)
			}()
			for shim.calls(t, "blocked") == 0 {
				if len(result) > 0 {
					t.Fatalf("the call did not block: %v", <-result)
				}
			}
			look := looking.TryRLock()
			if look {
				looking.RUnlock()
			}
			remove := looking.TryLock()
			if remove {
				looking.Unlock()
			}
			if look != want.look || remove != want.remove {
				t.Errorf("others may look: %t, remove: %t; want %+v", look, remove, want)
			}
			shim.disarm()
			if err := <-result; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOthersGoOnWhileSomebodyLooks: with a library that keeps to the standard, a
// search that takes its time holds up nobody else.
func TestOthersGoOnWhileSomebodyLooks(t *testing.T) {
	_, spki := newRSA(t, 2048)
	for _, function := range []string{"C_FindObjectsInit", "C_GetAttributeValue", "C_DestroyObject"} {
		t.Run(function, func(t *testing.T) {
			_, shim, config := newShim(t)
			token := openToken(t, config)
			req := hsm.WrapRequest{Key: generate(t, token).ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki}
			shim.arm(t, "%s block", function)
			const callers = 2
			results := make(chan error, callers)
			for range callers {
				go func() {
					_, err := token.Wrap(context.Background(), req)
					results <- err
				}()
			}
			for shim.calls(t, "blocked") < callers {
				if len(results) > 0 {
					t.Fatalf("the call did not block: %v", <-results)
				}
			}
			shim.disarm()
			for range callers {
				if err := <-results; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestWhoIsGuarded(t *testing.T) {
	for _, test := range []struct {
		manufacturer string
		major, minor byte
		want         bool
	}{
		{"IBM", 2, 20, true}, {"IBM", 3, 8, true}, {"IBM", 3, 13, true}, {"IBM", 3, 14, false}, {"IBM", 4, 0, false},
		{"SoftHSM", 2, 6, false}, {"SafeNet", 10, 9, false}, {"", 0, 0, false},
	} {
		guard := guardFor(p11.Info{ManufacturerID: test.manufacturer, LibraryVersion: p11.Version{Major: test.major, Minor: test.minor}})
		_, free := guard.removing.(unguarded)
		if free == test.want {
			t.Errorf("%s %d.%d is guarded: %t", test.manufacturer, test.major, test.minor, !free)
		}
	}
}

// TestReusedHandle: a handle that a key had is no key when another object has it.
func TestReusedHandle(t *testing.T) {
	token := newToken(t)
	private, _ := newRSA(t, 2048)
	onSession(t, token, func(s *session) error {
		public, err := s.importPublicKey(&private.PublicKey)
		if err != nil {
			return err
		}
		defer s.discard(public)
		secret, err := s.GenerateKey(s.handle, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, aesTemplate(false))
		if err != nil {
			return err
		}
		defer s.discard(secret)
		keys, err := token.readKeys(s, []p11.ObjectHandle{public, secret})
		if err != nil || len(keys) != 0 {
			t.Errorf("read %+v, %v", keys, err)
		}
		return nil
	})
}
