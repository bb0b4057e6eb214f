package devices

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

const sessionCallTimeout = 5 * time.Second

// do makes a call that must be answered, and returns the answer.
func do(t *testing.T, s cryptoki.Session, call *cryptoki.Call) *cryptoki.Answer {
	t.Helper()
	answer, err := s.Do(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func openRaw(t *testing.T, d *backend.Device) cryptoki.Session {
	t.Helper()
	s, err := d.OpenSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// encrypts makes a session key and encrypts with it, in one of the ways of PKCS#11
// clients.
func encrypts(t *testing.T, s cryptoki.Session) {
	t.Helper()
	key := do(t, s, &cryptoki.Call{
		Function: cryptoki.GenerateKey, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_AES_KEY_GEN},
		Templates: [2][]cryptoki.Attribute{{
			cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, false), cryptoki.UlongAttribute(cryptoki.CKA_VALUE_LEN, 32),
			cryptoki.BoolAttribute(cryptoki.CKA_ENCRYPT, true),
		}},
	})
	begun, encrypted, err := cryptoki.DoBoth(t.Context(), s,
		&cryptoki.Call{Function: cryptoki.EncryptInit, Numbers: [4]uint64{0, key.Numbers[0]}, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_AES_ECB}},
		&cryptoki.Call{Function: cryptoki.Encrypt, Data: [2][]byte{make([]byte, 32)}, Room: cryptoki.Room{Size: 64}})
	if err != nil || key.RV != cryptoki.CKR_OK || begun.RV != cryptoki.CKR_OK || encrypted.RV != cryptoki.CKR_OK || len(encrypted.Data) != 32 {
		t.Errorf("generated %v, begun %+v, encrypted %+v, %v", key.RV, begun, encrypted, err)
	}
}

// TestSessions: what PKCS#11 clients use of each device, through its own plugin.
func TestSessions(t *testing.T) {
	for _, dress := range []hsmsim.Dress{hsmsim.Luna, hsmsim.LunaFIPS, hsmsim.LunaOldFirmware, hsmsim.LunaHA, hsmsim.DPoD} {
		t.Run(string(dress), func(t *testing.T) {
			sim := newDevice(t, dress)
			b := supervise(t, sim, sessionCallTimeout)
			d, err := b.Device(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s := openRaw(t, d)
			about := do(t, s, &cryptoki.Call{Function: cryptoki.GetTokenInfo}).Info.(*cryptoki.TokenInfo)
			var label [32]byte
			if cryptoki.Pad(label[:], sim.Label); about.Label != label {
				t.Errorf("the token is called %s", about.Label)
			}
			encrypts(t, s)
			logins := sim.count("C_Login")
			for _, f := range []cryptoki.Function{cryptoki.Login, cryptoki.Logout, cryptoki.SetPIN, cryptoki.CloseAllSessions, cryptoki.Finalize} {
				if rv := do(t, s, &cryptoki.Call{Function: f}).RV; rv != cryptoki.CKR_FUNCTION_NOT_SUPPORTED {
					t.Errorf("%v: %v", f, rv)
				}
			}
			if n := sim.count("C_Login"); n != logins {
				t.Errorf("C_Login reached the device %d times", n-logins)
			}
		})
	}
}

func (d *device) count(function string) (n int) {
	for _, call := range d.Calls() {
		if call.Function == function {
			n++
		}
	}
	return n
}

// TestSessionsOfLostDevice: the answer that tells of the loss has the process replaced,
// and the next one has sessions.
func TestSessionsOfLostDevice(t *testing.T) {
	for _, dress := range []hsmsim.Dress{hsmsim.Luna, hsmsim.DPoD} {
		t.Run(string(dress), func(t *testing.T) {
			sim := newDevice(t, dress)
			b := supervise(t, sim, sessionCallTimeout)
			d, err := b.Device(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s := openRaw(t, d)
			encrypts(t, s)
			sim.LinkDown()
			answer := do(t, s, &cryptoki.Call{Function: cryptoki.GenerateRandom, Room: cryptoki.Room{Size: 8}})
			if !slices.Contains([]cryptoki.RV{cryptoki.CKR_DEVICE_ERROR, cryptoki.CKR_DEVICE_REMOVED, cryptoki.CKR_TOKEN_NOT_PRESENT}, answer.RV) {
				t.Errorf("without a link: %v", answer.RV)
			}
			d.Suspect()
			select {
			case <-d.Gone:
			case <-time.After(time.Minute):
				t.Fatal("the process was not replaced")
			}
			sim.LinkUp()
			next, err := b.Device(t.Context())
			for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); next, err = b.Device(t.Context()) {
				if !errors.Is(err, hsm.TokenGone) {
					t.Fatal(err)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			encrypts(t, openRaw(t, next))
		})
	}
}

// TestFewSessionsForClients: the engine's calls and those of clients share what the
// device admits, and neither takes the other's.
func TestFewSessionsForClients(t *testing.T) {
	sim := newDevice(t, hsmsim.Luna, hsmsim.Set("max_sessions", "6"))
	b := supervise(t, sim, sessionCallTimeout)
	d, err := b.Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := d.MaxSessions(); n != 2 {
		t.Fatalf("%d sessions for clients", n)
	}
	for range d.MaxSessions() {
		encrypts(t, openRaw(t, d))
	}
	generate(t, b.Token())

	none := supervise(t, newDevice(t, hsmsim.Luna, hsmsim.Set("max_sessions", "4")), sessionCallTimeout)
	if _, err := none.Device(t.Context()); !errors.Is(err, hsm.Misconfigured) {
		t.Errorf("a device with too few: %v", err)
	}
	generate(t, none.Token())
}
