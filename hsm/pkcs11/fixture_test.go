package pkcs11

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
)

// newConfig makes a token and the configuration that opens it.
func newConfig(t *testing.T) (*softhsmtest.Fixture, Config) {
	t.Helper()
	f := softhsmtest.New(t)
	t.Setenv("SOFTHSM2_CONF", f.ConfPath)
	return f, Config{
		Library:    f.Library,
		TokenLabel: f.Label,
		PIN:        hsm.PIN([]byte(f.PIN)),
		Logger:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func openToken(t *testing.T, config Config) *Token {
	t.Helper()
	token, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return token
}

func newToken(t *testing.T) *Token {
	t.Helper()
	_, config := newConfig(t)
	return openToken(t, config)
}

// shim is a library that counts calls and fails on demand; see testdata/shim.c.
type shim struct{ log, fault string }

func newShim(t *testing.T) (*softhsmtest.Fixture, *shim, Config) {
	t.Helper()
	f, config := newConfig(t)
	dir := t.TempDir()
	library := filepath.Join(dir, "shim.so")
	out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-o", library, "testdata/shim.c", "-ldl").CombinedOutput()
	if err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	s := &shim{log: filepath.Join(dir, "log"), fault: filepath.Join(dir, "fault")}
	t.Setenv("SHIM_MODULE", f.Library)
	t.Setenv("SHIM_LOG", s.log)
	t.Setenv("SHIM_FAULT", s.fault)
	config.Library = library
	return f, s, config
}

// arm sets the next fault, in the words of testdata/shim.c.
func (s *shim) arm(t *testing.T, fault string, args ...any) {
	t.Helper()
	part := s.fault + ".part"
	if err := os.WriteFile(part, fmt.Appendf(nil, fault, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, s.fault); err != nil {
		t.Fatal(err)
	}
}

func (s *shim) disarm() { os.Remove(s.fault) }

// armed reports whether the fault has not struck yet.
func (s *shim) armed() bool {
	_, err := os.Stat(s.fault)
	return err == nil
}

// calls counts the calls of a function so far, or of all with "C_".
func (s *shim) calls(t *testing.T, name string) int {
	t.Helper()
	log, err := os.ReadFile(s.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if name == "C_" {
		return strings.Count(string(log), "\n")
	}
	return strings.Count(string(log), name+"\n")
}

func wantReason(t *testing.T, err error, want hsm.Reason) {
	t.Helper()
	e, ok := errors.AsType[*hsm.Error](err)
	if !ok {
		t.Fatalf("got error %v (%T), want an *hsm.Error with reason %s", err, err, want)
	}
	if e.Reason != want {
		t.Fatalf("got reason %s (%v), want %s", e.Reason, err, want)
	}
	t.Logf("as expected: %v", err)
}

func generate(t *testing.T, token *Token) *hsm.Key {
	t.Helper()
	key, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "payments"})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRSA(t *testing.T, bits int) (*rsa.PrivateKey, []byte) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return private, spki
}

// onSession runs fn inside the token, for what the engine does not offer.
func onSession(t *testing.T, token *Token, fn func(s *session) error) {
	t.Helper()
	if err := token.pool.do(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// addObject makes an object that somebody else might have put on the token.
func addObject(t *testing.T, token *Token, changes ...*p11.Attribute) {
	t.Helper()
	template := append(aesTemplate(true), p11.NewAttribute(p11.CKA_LABEL, "foreign"))
	for _, change := range changes {
		replaced := false
		for i, a := range template {
			if a.Type == change.Type {
				template[i], replaced = change, true
			}
		}
		if !replaced {
			template = append(template, change)
		}
	}
	onSession(t, token, func(s *session) error {
		_, err := s.GenerateKey(s.handle, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, template)
		return err
	})
}

// publicKeys counts the public key objects on the token, as a session that
// shares the login sees them.
func publicKeys(t *testing.T, token *Token) (n int) {
	t.Helper()
	onSession(t, token, func(s *session) error {
		found, err := s.find(p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY))
		n = len(found)
		return err
	})
	return n
}
