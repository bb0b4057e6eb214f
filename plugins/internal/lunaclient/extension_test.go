package lunaclient

import (
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
)

// loadLibrary compiles testdata/extension.c and loads it, as the engine would.
func loadLibrary(t *testing.T, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "libCryptoki2.so")
	args := append(flags, "-shared", "-fPIC", "-o", path, "testdata/extension.c", "testdata/functionlist.c")
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	if p11.New(path) == nil {
		t.Fatal("the library was not loaded")
	}
	return path
}

func TestInspector(t *testing.T) {
	policies := []hsm.Policy{
		{Number: 5, Name: "secret key wrapping", Value: 1},
		{Number: 11, Name: "changing key attributes", Value: 0},
		{Number: 20, Name: "maximum failed user logins", Value: 10},
		{Number: 43, Name: "non-FIPS algorithms", Value: 1},
		{Number: 99, Name: "partition policy 99", Value: 1},
	}
	for _, test := range []struct {
		name  string
		flags []string
		want  pkcs11.Details
	}{
		{"all", nil, pkcs11.Details{Firmware: "7.7.1", FIPS: new(true), Policies: policies}},
		{"no HSM policy", []string{"-DLACKS_HSM_POLICY"}, pkcs11.Details{Firmware: "7.7.1", FIPS: new(false), Policies: policies}},
		{"refusing", []string{"-DREFUSES"}, pkcs11.Details{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Inspector(loadLibrary(t, test.flags...))(pkcs11.Slot{ID: 7}); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
	t.Run("plain PKCS#11", func(t *testing.T) {
		if got := Inspector("/nowhere/lib.so")(pkcs11.Slot{}); !reflect.DeepEqual(got, pkcs11.Details{}) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestInitializerPointsToLunacm(t *testing.T) {
	_, err := Initializer{}.InitToken(t.Context(), hsm.TokenSpec{Label: "x"})
	if hsm.ReasonOf(err) != hsm.NotPermitted {
		t.Errorf("got %v", err)
	}
}
