package pkcs11

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestInitToken(t *testing.T) {
	f, config := newConfig(t)
	soPIN, pin := []byte("so-pin-1"), []byte("user-pin-1")
	serial, err := InitToken(t.Context(), InitConfig{Library: f.Library, Label: "fresh", SOPIN: soPIN, PIN: pin})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(soPIN, make([]byte, len(soPIN))) || !bytes.Equal(pin, make([]byte, len(pin))) {
		t.Error("the PINs were not wiped")
	}
	config.TokenLabel, config.TokenSerial, config.PIN = "fresh", serial, hsm.PIN([]byte("user-pin-1"))
	token := openToken(t, config)
	generate(t, token)
}

func TestInitTokenRefusals(t *testing.T) {
	f, config := newConfig(t)
	for _, test := range []struct {
		name, label, soPIN, pin string
		want                    hsm.Reason
	}{
		{"label in use", f.Label, "so-pin-1", "user-pin-1", hsm.AlreadyExists},
		{"no label", "", "so-pin-1", "user-pin-1", hsm.Invalid},
		{"long label", strings.Repeat("x", 33), "so-pin-1", "user-pin-1", hsm.Invalid},
		{"no PIN", "fresh", "so-pin-1", "", hsm.PINMissing},
		{"no officer's PIN", "fresh", "", "user-pin-1", hsm.PINMissing},
		{"short PIN", "fresh", "so-pin-1", "123", hsm.Invalid},
		{"short officer's PIN", "fresh", "123", "user-pin-1", hsm.Invalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := InitToken(t.Context(), InitConfig{
				Library: f.Library, Label: test.label, SOPIN: []byte(test.soPIN), PIN: []byte(test.pin),
			})
			wantReason(t, err, test.want)
		})
	}
	// The refusals left the first token alone and made no other.
	config.TokenLabel = "fresh"
	_, err := Open(t.Context(), config)
	wantReason(t, err, hsm.NotFound)
	config.TokenLabel, config.PIN = f.Label, hsm.PIN([]byte(f.PIN))
	openToken(t, config)
}
