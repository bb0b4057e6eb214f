//go:build root

package opencryptoki

import (
	"context"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
)

// TestEngine takes a key through its life.
func TestEngine(t *testing.T) {
	d := newDevice(t)
	token := d.open(d.config(userPIN))
	info, err := token.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(info.WrappingAlgorithms, hsm.WrappingAlgorithms()) || info.Label != tokenLabel || info.MaxSessions != 0 {
		t.Errorf("described as %+v", info)
	}
	key := generate(t, token)
	for _, algorithm := range info.WrappingAlgorithms {
		for _, bits := range []int{2048, 4096} {
			t.Run(fmt.Sprintf("%s under RSA-%d", algorithm, bits), func(t *testing.T) { checkWrap(t, token, key.ID, algorithm, bits) })
		}
	}
	keys, err := token.Keys(t.Context())
	if err != nil || len(keys) != 1 || keys[0].ID != key.ID || !keys[0].Sensitive || !keys[0].Extractable || keys[0].Wrap {
		t.Errorf("listed %+v, %v", keys, err)
	}
	if err := token.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if err := token.DestroyKey(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := token.Key(t.Context(), key.ID); !errors.Is(err, hsm.NotFound) {
		t.Errorf("a destroyed key: %v", err)
	}
}

func generate(t *testing.T, token *pkcs11.Token) *hsm.Key {
	t.Helper()
	key, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "payments"})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// checkWrap opens a blob as its receiver would, and compares check values.
func checkWrap(t *testing.T, token *pkcs11.Token, id hsm.KeyID, algorithm hsm.WrappingAlgorithm, bits int) {
	t.Helper()
	private, spki := newRSA(t, bits)
	blob, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: id, Algorithm: algorithm, PublicKey: spki})
	if err != nil {
		t.Fatal(err)
	}
	value, err := unwrap(private, blob, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(value)
	if err != nil || len(value) != 32 {
		t.Fatalf("the blob holds %d bytes", len(value))
	}
	zeros := make([]byte, aes.BlockSize)
	block.Encrypt(zeros, zeros)
	want, err := token.CheckValue(t.Context(), id)
	if err != nil || want != hsm.CheckValue(zeros[:3]) {
		t.Errorf("check value %x, the token says %s, %v", zeros[:3], want, err)
	}
}

func newRSA(t *testing.T, bits int) (private *rsa.PrivateKey, spki []byte) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	spki, err = x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return private, spki
}

func unwrap(private *rsa.PrivateKey, blob []byte, algorithm hsm.WrappingAlgorithm) ([]byte, error) {
	switch algorithm {
	case hsm.OAEPSHA256:
		return rsa.DecryptOAEP(sha256.New(), nil, private, blob, nil)
	case hsm.OAEPSHA1:
		return rsa.DecryptOAEP(sha1.New(), nil, private, blob, nil)
	default:
		return rsa.DecryptPKCS1v15(nil, private, blob) //nolint:staticcheck // one of the algorithms; nobody can ask for a second decryption
	}
}

// TestConcurrency has more callers than sessions.
func TestConcurrency(t *testing.T) {
	d := newDevice(t)
	config := d.config(userPIN)
	config.MaxSessions = 4
	token := d.open(config)
	_, spki := newRSA(t, 2048)
	cycle := func() error {
		id := hsm.NewKeyID()
		if _, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "concurrent"}); err != nil {
			return err
		}
		for _, algorithm := range hsm.WrappingAlgorithms() {
			if _, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: id, Algorithm: algorithm, PublicKey: spki}); err != nil {
				return err
			}
		}
		_, err := token.Keys(t.Context())
		return errors.Join(err, token.DestroyKey(t.Context(), id))
	}
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for range 50 {
				if err := cycle(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if keys, err := token.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("%d keys are left over, %v", len(keys), err)
	}
}

// TestReopen closes the token and opens it again, in the same process.
func TestReopen(t *testing.T) {
	d := newDevice(t)
	first := d.open(d.config(userPIN))
	key := generate(t, first)
	want, err := first.CheckValue(t.Context(), key.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Key(t.Context(), key.ID); !errors.Is(err, hsm.TokenGone) {
		t.Errorf("a closed token: %v", err)
	}
	second := d.open(d.config(userPIN))
	if got, err := second.CheckValue(t.Context(), key.ID); err != nil || got != want {
		t.Errorf("check value %s, %v; it was %s", got, err, want)
	}
	checkWrap(t, second, key.ID, hsm.OAEPSHA256, 2048)
}
