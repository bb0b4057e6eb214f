package main

import (
	"context"
	"log/slog"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
)

func request(settings map[string]string) plugin.OpenRequest {
	return plugin.OpenRequest{Settings: settings, PIN: hsm.PIN([]byte("1234-user")), Logger: slog.New(slog.DiscardHandler)}
}

// A library that has nothing of the Luna client's own still works.
func TestPlainLibrary(t *testing.T) {
	f := softhsmtest.New(t)
	t.Setenv("SOFTHSM2_CONF", f.ConfPath)
	token, err := open(t.Context(), request(map[string]string{"library": f.Library, "token_label": f.Label, "max_sessions": "30"}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := token.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	info, err := token.Describe(t.Context())
	if err != nil || info.FIPS != nil || info.Policies != nil || info.Serial != f.Serial {
		t.Errorf("Describe: %+v, %v", info, err)
	}
	key, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "payments"})
	if err != nil {
		t.Fatal(err)
	}
	if len(key.Vendor) != 0 {
		t.Errorf("vendor attributes %v", key.Vendor)
	}
}
