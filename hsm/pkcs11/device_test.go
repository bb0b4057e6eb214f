package pkcs11

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestChooseDecidesBetweenSlots(t *testing.T) {
	f, config := newConfig(t)
	other := f.AddToken(t, f.Label)
	f.AddToken(t, "bystander")
	config.Choose = func(present, matching []Slot) ([]Slot, error) {
		if len(present) != 3 || len(matching) != 2 {
			t.Errorf("%d slots present, %d match; want 3 and 2", len(present), len(matching))
		}
		for _, s := range matching {
			if s.Serial == other && s.Label == f.Label && strings.Contains(s.Description, "SoftHSM") {
				return []Slot{s}, nil
			}
		}
		return nil, errors.New("the slot is not there")
	}
	token := openToken(t, config)
	if info, err := token.Describe(t.Context()); err != nil || info.Serial != other {
		t.Errorf("opened %+v, %v", info, err)
	}
}

func TestChooseRefuses(t *testing.T) {
	_, shim, config := newShim(t)
	config.Choose = func(_, _ []Slot) ([]Slot, error) { return nil, hsm.Errorf(hsm.Misconfigured, "a member") }
	_, err := Open(t.Context(), config)
	wantReason(t, err, hsm.Misconfigured)
	if n := shim.calls(t, "C_Login"); n != 0 {
		t.Error("the token was logged in to")
	}
}

// A slot that cannot be asked is passed over when the token is found, and the
// reason when it is not.
func TestSlotThatCannotBeAsked(t *testing.T) {
	f, shim, config := newShim(t)
	config.TokenLabel = "nobody"
	for code, want := range map[string]hsm.Reason{"0x30": hsm.TokenGone, "0xE0": hsm.NotFound} {
		t.Run(code, func(t *testing.T) {
			config := config
			config.PIN = hsm.PIN([]byte(f.PIN))
			shim.arm(t, "C_GetTokenInfo before %s", code)
			_, err := Open(t.Context(), config)
			wantReason(t, err, want)
		})
	}
}

// The token appears while Open waits for it.
func TestOpenWaitsForToken(t *testing.T) {
	_, shim, config := newShim(t)
	config.TokenWait = openWait
	shim.arm(t, "C_GetTokenInfo before 0xE0")
	openToken(t, config)
}

func TestVendorAttributes(t *testing.T) {
	const unknown = 0x80000005
	_, config := newConfig(t)
	// SoftHSM has no vendor attributes, so that one of the standard's stands in.
	config.Vendor = []VendorAttribute{{"OUID", unknown}, {"STAND_IN", p11.CKA_ID}}
	token := openToken(t, config)
	key := generate(t, token)
	want := map[string]string{"STAND_IN": hex.EncodeToString(key.ID.Bytes())}
	if !reflect.DeepEqual(key.Vendor, want) {
		t.Errorf("generated key has %v, want %v", key.Vendor, want)
	}
	keys, err := token.Keys(t.Context())
	if err != nil || len(keys) != 1 || !reflect.DeepEqual(keys[0].Vendor, want) {
		t.Errorf("listed: %+v, %v", keys, err)
	}
}

func TestInspect(t *testing.T) {
	_, config := newConfig(t)
	asked := 0
	config.Inspect = func(s Slot) Details {
		asked++
		if s.Label != config.TokenLabel {
			t.Errorf("asked about %+v", s)
		}
		return Details{Firmware: "7.7.1", FIPS: new(true), Policies: []hsm.Policy{{Number: 5, Name: "secret key wrapping", Value: 1}}}
	}
	token := openToken(t, config)
	for range 2 {
		info, err := token.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Firmware != "7.7.1" || info.FIPS == nil || !*info.FIPS || len(info.Policies) != 1 || info.Policies[0].Value != 1 {
			t.Errorf("got %+v", info)
		}
	}
	if asked != 1 {
		t.Errorf("the device was asked %d times", asked)
	}
}

func TestHints(t *testing.T) {
	_, shim, config := newShim(t)
	config.Hints = map[string]string{"CKR_UNABLE_TO_CONNECT": "the way is barred"}
	says := func(err error, want bool) {
		t.Helper()
		wantReason(t, err, hsm.TokenGone)
		if strings.Contains(err.Error(), "; the way is barred (CKR_") != want {
			t.Errorf("error %q; a hint is wanted: %t", err, want)
		}
	}
	token := openToken(t, config)
	shim.arm(t, "C_FindObjectsInit before 0x8000001F")
	_, err := token.Keys(t.Context())
	says(err, true)
	shim.arm(t, "C_FindObjectsInit before 0x30")
	_, err = token.Keys(t.Context())
	says(err, false)
}

func TestHintAtLogin(t *testing.T) {
	_, shim, config := newShim(t)
	config.Hints = map[string]string{"CKR_UNABLE_TO_CONNECT": "the way is barred"}
	shim.arm(t, "C_Login before 0x8000001F")
	_, err := Open(t.Context(), config)
	wantReason(t, err, hsm.TokenGone)
	if !strings.Contains(err.Error(), "the way is barred") {
		t.Errorf("error %q has no hint", err)
	}
}

// What a Crypto User may not do is refused without a call of the device. SoftHSM
// does not know the role, so the token is opened as Crypto Officer and demoted.
func TestCryptoUser(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	key := generate(t, token)
	token.role = hsm.CryptoUser
	_, spki := newRSA(t, 2048)
	before := shim.calls(t, "C_")
	for name, call := range map[string]func() error{
		"GenerateKey": func() error {
			_, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"})
			return err
		},
		"SealKey":    func() error { _, err := token.SealKey(t.Context(), key.ID); return err },
		"DestroyKey": func() error { return token.DestroyKey(t.Context(), key.ID) },
		"Wrap": func() error {
			_, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := call()
			wantReason(t, err, hsm.NotPermitted)
			if !strings.Contains(err.Error(), "Crypto User") {
				t.Errorf("error %q does not name the role", err)
			}
		})
	}
	if after := shim.calls(t, "C_"); after != before {
		t.Errorf("%d calls reached the device", after-before)
	}
	info, err := token.Describe(t.Context())
	if err != nil || info.Role != hsm.CryptoUser || len(info.WrappingAlgorithms) != 0 {
		t.Errorf("Describe: %+v, %v", info, err)
	}
	if _, err := token.CheckValue(t.Context(), key.ID); err != nil {
		t.Errorf("CheckValue: %v", err)
	}
	if _, err := token.Key(t.Context(), key.ID); err != nil {
		t.Errorf("Key: %v", err)
	}
}

func TestCryptoUserLogsInAsSuch(t *testing.T) {
	_, config := newConfig(t)
	config.Role = hsm.CryptoUser
	_, err := Open(t.Context(), config)
	wantReason(t, err, hsm.NotPermitted) // CKR_USER_TYPE_INVALID: SoftHSM does not know the role
}
