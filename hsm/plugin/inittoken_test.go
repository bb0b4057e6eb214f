package plugin

import (
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func spec(label string) hsm.TokenSpec {
	return hsm.TokenSpec{Settings: map[string]string{"library": "soft.so"}, Label: label, SOPIN: []byte("5678"), PIN: []byte("1234")}
}

func TestInitTokenTravels(t *testing.T) {
	process := start(t, newCommand(t, "good"))
	serial, err := process.InitToken(t.Context(), spec("fresh"))
	if err != nil || serial != "0a1b" {
		t.Errorf("got %q, %v", serial, err)
	}
	// The library of this process was initialised once, and that was it.
	_, err = process.Open(t.Context(), OpenConfig{PIN: hsm.PIN([]byte("1234"))})
	wantReason(t, err, hsm.Invalid)
	_, err = process.InitToken(t.Context(), spec("fresh"))
	wantReason(t, err, hsm.Invalid)
}

func TestInitTokenRefusals(t *testing.T) {
	for _, test := range []struct {
		mode, label string
		want        hsm.Reason
	}{
		{"good", "taken", hsm.AlreadyExists},
		{"lying", "fresh", hsm.Corrupt},
		{"uninitializable", "fresh", hsm.NotPermitted},
	} {
		t.Run(test.mode, func(t *testing.T) {
			process := start(t, newCommand(t, test.mode))
			_, err := process.InitToken(t.Context(), spec(test.label))
			wantReason(t, err, test.want)
		})
	}
	t.Run("after Open", func(t *testing.T) {
		process, _ := open(t, "good")
		_, err := process.InitToken(t.Context(), spec("fresh"))
		wantReason(t, err, hsm.Invalid)
	})
}
