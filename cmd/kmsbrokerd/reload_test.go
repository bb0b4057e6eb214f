package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/config"
)

func TestReloader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kmsbrokerd.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const kms = "[kms]\nregion = 'cn-hangzhou'\ncredentials_file = '/c'\n"
	const grant = "[[grant]]\nkeys = ['k']\noperations = ['encrypt']\nusers = [7]\n"
	write(kms)
	running, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &reloader{path: path, running: running}

	write(kms + grant)
	loaded, err := r.read()
	if err != nil || len(loaded.Restart) != 0 {
		t.Fatalf("%+v, %v", loaded, err)
	}
	decision := loaded.Policy.Decide(authz.Request{Caller: authz.Caller{UID: 7}, Operation: authz.Encrypt, Key: "k"})
	if _, at, _ := decision.Grant(); !decision.Allowed || at != path+":4" {
		t.Errorf("allowed %v by the grant at %s", decision.Allowed, at)
	}

	const objects = "[[pkcs11]]\ntokens = ['*']\nlabels = ['x']\noperations = ['sign']\nusers = [7]\n"
	write(kms + objects)
	loaded, err = r.read()
	if err != nil || len(loaded.Restart) != 0 || loaded.Policy.Len() != 0 || loaded.Policy.LenObjects() != 1 {
		t.Fatalf("%+v, %v", loaded, err)
	}
	decision = loaded.Policy.Objects(authz.Caller{UID: 7}).Decide(authz.ObjectSign, authz.Object{Token: "luna", Label: "x"})
	if _, at, _ := decision.Grant(); !decision.Allowed || at != path+":4" {
		t.Errorf("allowed %v by the grant at %s", decision.Allowed, at)
	}

	write("log_level = 'debug'\n" + kms + "endpoint = 'kms-vpc.cn-hangzhou.aliyuncs.com'\n" + grant)
	if loaded, err = r.read(); err != nil || !slices.Equal(loaded.Restart, []string{"log_level", "kms"}) {
		t.Errorf("%v need a restart, %v", loaded.Restart, err)
	}

	write(kms + strings.Repeat("[[grant]]\nkeys = ['k']\noperations = ['encript']\nusers = [7]\n", 7))
	_, err = r.read()
	if err == nil || strings.Contains(err.Error(), "\n") || strings.Count(err.Error(), path) != 5 || !strings.HasSuffix(err.Error(), "; and 2 more") {
		t.Errorf("a file with mistakes: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := r.read(); err == nil {
		t.Error("no file is a policy")
	}
}
