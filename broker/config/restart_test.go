package config

import (
	"reflect"
	"slices"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/authz"
)

func load(t *testing.T) *Config {
	t.Helper()
	c, err := parse("good.toml", readTestdata(t, "good.toml"), testAccounts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRestart(t *testing.T) {
	running := load(t)
	if got := running.Restart(load(t)); len(got) != 0 {
		t.Errorf("the same file needs a restart for %v", got)
	}
	next := load(t)
	next.Grants = []authz.Grant{{Keys: []string{"other"}}}
	next.Objects = []authz.ObjectGrant{{Labels: []string{"other"}}}
	if got := running.Restart(next); len(got) != 0 {
		t.Errorf("grants need a restart: %v", got)
	}
	next.KMS.Default.Endpoints = nil
	next.Sockets.Application = "/run/other.sock"
	next.Backends = slices.Delete(next.Backends, 1, 2)
	next.Backends[0].PINFile = "/other"
	next.Backends = append(next.Backends, Backend{Name: "new", Plugin: "softhsm"})
	want := []string{"kms", "sockets", "backend.payments-hsm", "backend.luna", "backend.new"}
	if got := running.Restart(next); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestRestartKnowsEverySetting: a setting that is added to Config must not be
// forgotten when a file is read again.
func TestRestartKnowsEverySetting(t *testing.T) {
	for i := range reflect.TypeFor[Config]().NumField() {
		field := reflect.TypeFor[Config]().Field(i)
		running, next := load(t), load(t)
		reflect.ValueOf(next).Elem().Field(i).SetZero()
		if got := running.Restart(next); (len(got) == 0) != (field.Name == "Grants" || field.Name == "Objects") {
			t.Errorf("without %s: %v need a restart", field.Name, got)
		}
	}
}
