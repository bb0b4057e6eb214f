package hsmsim_test

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"slices"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

func config(t *testing.T, sim *hsmsim.Sim) pkcs11.Config {
	t.Helper()
	sim.Setenv()
	return pkcs11.Config{
		Library: sim.Library, TokenSerial: sim.Serial, TokenLabel: sim.Label, PIN: hsm.PIN([]byte(sim.PIN)),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// The engine that all plugins share works unchanged on every dress.
func TestEngine(t *testing.T) {
	all := hsm.WrappingAlgorithms()
	for dress, algorithms := range map[hsmsim.Dress][]hsm.WrappingAlgorithm{
		hsmsim.Luna:            all,
		hsmsim.LunaHA:          all,
		hsmsim.LunaFIPS:        all[:2],
		hsmsim.DPoD:            all[:2],
		hsmsim.LunaOldFirmware: all[1:],
	} {
		t.Run(string(dress), func(t *testing.T) {
			token, err := pkcs11.Open(t.Context(), config(t, hsmsim.New(t, dress, hsmsim.Set("latency_max_ms", "0"), hsmsim.Set("latency_min_ms", "0"))))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := token.Close(context.Background()); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			info, err := token.Describe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(info.WrappingAlgorithms, algorithms) || info.MaxSessions != 1000 {
				t.Errorf("described as %+v, want the algorithms %v", info, algorithms)
			}
			exerciseEngine(t, token, algorithms)
		})
	}
}

func exerciseEngine(t *testing.T, token *pkcs11.Token, algorithms []hsm.WrappingAlgorithm) {
	t.Helper()
	spec := hsm.KeySpec{ID: hsm.NewKeyID(), Label: "payments"}
	key, err := token.GenerateKey(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := token.GenerateKey(t.Context(), spec); err != nil || again.ID != key.ID {
		t.Errorf("a repeated generation: %+v, %v", again, err)
	}
	kcv, err := token.CheckValue(t.Context(), key.ID)
	if err != nil {
		t.Fatal(err)
	}
	private := newRSA(t, 2048)
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range algorithms {
		blob, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: key.ID, Algorithm: algorithm, PublicKey: spki})
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if algorithm != hsm.OAEPSHA256 {
			continue
		}
		if value, err := rsa.DecryptOAEP(sha256.New(), nil, private, blob, nil); err != nil || len(value) != 32 {
			t.Errorf("%s under check value %s: %d bytes, %v", algorithm, kcv, len(value), err)
		}
	}
	if keys, err := token.Keys(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("keys %+v, %v", keys, err)
	}
	if err := token.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if err := token.DestroyKey(t.Context(), key.ID); err != nil {
		t.Error(err)
	}
}

// What the engine makes of the device's troubles.
func TestEngineReasons(t *testing.T) {
	for name, test := range map[string]struct {
		opts   []hsmsim.Option
		before func(*hsmsim.Sim)
		pin    string
		reason hsm.Reason
	}{
		"wrong PIN": {pin: "wrong-pin", reason: hsm.PINIncorrect},
		"locked":    {opts: []hsmsim.Option{hsmsim.Set("policy.20", "1")}, pin: "wrong-pin", reason: hsm.PINLocked},
		"no PIN":    {opts: []hsmsim.Option{hsmsim.Set("co_pin", "")}, reason: hsm.PINMissing},
		"busy":      {before: func(s *hsmsim.Sim) { s.Inject("C_OpenSession", ckrBusy, 1) }, reason: hsm.Busy},
		"link down": {before: func(s *hsmsim.Sim) { s.LinkDown() }, reason: hsm.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			sim := hsmsim.New(t, hsmsim.Luna, test.opts...)
			c := config(t, sim)
			if test.pin != "" {
				c.PIN = hsm.PIN([]byte(test.pin))
			}
			if test.before != nil {
				test.before(sim)
			}
			token, err := pkcs11.Open(t.Context(), c)
			if err == nil {
				t.Error("Open succeeded", token.Close(context.Background()))
			}
			if got := hsm.ReasonOf(err); got != test.reason {
				t.Errorf("reason %s (%v), want %s", got, err, test.reason)
			}
			if n := sim.Count("C_Login"); n > 1 {
				t.Errorf("%d logins", n)
			}
		})
	}
}
