package pkcs11

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestGenerateIsIdempotent(t *testing.T) {
	token := newToken(t)
	spec := hsm.KeySpec{ID: hsm.NewKeyID(), Label: "payments"}
	first, err := token.GenerateKey(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	kcv, err := token.CheckValue(t.Context(), spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	second, err := token.GenerateKey(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	again, err := token.CheckValue(t.Context(), spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	if kcv != again || fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("the repeat returned another key: %v %s, first %v %s", second, again, first, kcv)
	}
	keys, err := token.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 1 || keys[0].ID != spec.ID || keys[0].Label != "payments" || keys[0].Type != "AES" || keys[0].Bits != 256 {
		t.Errorf("the token lists %+v", keys)
	}
	if k := keys[0]; !k.Private || !k.Sensitive || !k.Extractable || !k.Local || !k.Encrypt || k.Decrypt || k.Wrap || k.Unwrap || k.Sign || k.Verify || k.Derive {
		t.Errorf("attributes differ from what was asked: %+v", k)
	}
}

func TestConcurrentGenerateMakesOneKey(t *testing.T) {
	token := newToken(t)
	spec := hsm.KeySpec{ID: hsm.NewKeyID(), Label: "payments"}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := token.GenerateKey(t.Context(), spec); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if keys, err := token.Keys(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("the token has %d keys, %v", len(keys), err)
	}
}

// The answer to C_GenerateKey is lost although the key was made.
func TestGenerateAfterLostAnswer(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	spec := hsm.KeySpec{ID: hsm.NewKeyID(), Label: "payments"}
	shim.arm(t, "C_GenerateKey after 0x30")
	_, err := token.GenerateKey(t.Context(), spec)
	wantReason(t, err, hsm.TokenGone)
	if _, err := token.GenerateKey(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if n := shim.calls(t, "C_GenerateKey"); n != 1 {
		t.Errorf("C_GenerateKey was called %d times", n)
	}
}

func TestGenerateRefusesForeignObjects(t *testing.T) {
	token := newToken(t)
	for name, changes := range map[string][]*p11.Attribute{
		"AES-128":         {p11.NewAttribute(p11.CKA_VALUE_LEN, 16)},
		"not extractable": {p11.NewAttribute(p11.CKA_EXTRACTABLE, false)},
		"can unwrap":      {p11.NewAttribute(p11.CKA_UNWRAP, true)},
	} {
		t.Run(name, func(t *testing.T) {
			id := hsm.NewKeyID()
			addObject(t, token, append(changes, p11.NewAttribute(p11.CKA_ID, id.Bytes()))...)
			_, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "x"})
			wantReason(t, err, hsm.AlreadyExists)
		})
	}
	t.Run("data object", func(t *testing.T) {
		id := hsm.NewKeyID()
		_, spki := newRSA(t, 2048)
		public, err := parsePublicKey(spki)
		if err != nil {
			t.Fatal(err)
		}
		onSession(t, token, func(s *session) error {
			_, err := s.CreateObject(s.handle, []*p11.Attribute{
				p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_RSA),
				p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_ID, id.Bytes()),
				p11.NewAttribute(p11.CKA_MODULUS, public.N.Bytes()), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
			})
			return err
		})
		_, err = token.GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "x"})
		wantReason(t, err, hsm.AlreadyExists)
	})
}

func TestGenerateRefusesBadSpecs(t *testing.T) {
	token := newToken(t)
	for name, spec := range map[string]hsm.KeySpec{
		"no id":         {Label: "x"},
		"id in capital": {ID: "AB", Label: "x"},
		"no label":      {ID: "ab"},
		"long label":    {ID: "ab", Label: strings.Repeat("x", 65)},
		"control":       {ID: "ab", Label: "a\nb"},
		"not ASCII":     {ID: "ab", Label: "schlüssel"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := token.GenerateKey(t.Context(), spec)
			wantReason(t, err, hsm.Invalid)
		})
	}
}

func TestSeveralKeysOfOneID(t *testing.T) {
	token := newToken(t)
	id := hsm.NewKeyID()
	addObject(t, token, p11.NewAttribute(p11.CKA_ID, id.Bytes()))
	addObject(t, token, p11.NewAttribute(p11.CKA_ID, id.Bytes()))
	_, spki := newRSA(t, 2048)
	for name, call := range map[string]func() error{
		"Key":        func() error { _, err := token.Key(t.Context(), id); return err },
		"SealKey":    func() error { _, err := token.SealKey(t.Context(), id); return err },
		"DestroyKey": func() error { return token.DestroyKey(t.Context(), id) },
		"Wrap": func() error {
			_, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: id, Algorithm: hsm.OAEPSHA1, PublicKey: spki})
			return err
		},
		"GenerateKey": func() error { _, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "x"}); return err },
	} {
		t.Run(name, func(t *testing.T) { wantReason(t, call(), hsm.Corrupt) })
	}
	if keys, err := token.Keys(t.Context()); err != nil || len(keys) != 2 {
		t.Errorf("Keys: %d, %v", len(keys), err)
	}
}

func TestKeysShowsWhatOthersMade(t *testing.T) {
	token := newToken(t)
	addObject(t, token, p11.NewAttribute(p11.CKA_LABEL, "evil\x1b[2Jlabel\xff")) // no CKA_ID at all
	onSession(t, token, func(s *session) error {
		_, err := s.GenerateKey(s.handle, []*p11.Mechanism{p11.NewMechanism(p11.CKM_DES3_KEY_GEN, nil)}, []*p11.Attribute{
			p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_ID, []byte{7}),
		})
		return err
	})
	keys, err := token.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 2 || keys[0].ID != "" || keys[0].Label != "evil?[2Jlabel?" || keys[1].ID != "07" || keys[1].Type != "0x15" {
		t.Errorf("got %+v", keys)
	}
}

func TestDestroy(t *testing.T) {
	token := newToken(t)
	key := generate(t, token)
	if err := token.DestroyKey(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	wantReason(t, token.DestroyKey(t.Context(), key.ID), hsm.NotFound)
	_, err := token.Key(t.Context(), key.ID)
	wantReason(t, err, hsm.NotFound)
	_, err = token.CheckValue(t.Context(), key.ID)
	wantReason(t, err, hsm.NotFound)
}

func TestMixedLoad(t *testing.T) {
	token := newToken(t)
	private, spki := newRSA(t, 2048)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 3 {
				if err := cycle(t.Context(), token, private, spki); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if keys, err := token.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("%d keys are left, %v", len(keys), err)
	}
	if n := publicKeys(t, token); n != 0 {
		t.Errorf("%d public keys are left", n)
	}
}

// cycle is the life of one key.
func cycle(ctx context.Context, token *Token, private *rsa.PrivateKey, spki []byte) error {
	key, err := token.GenerateKey(ctx, hsm.KeySpec{ID: hsm.NewKeyID(), Label: "load"})
	if err != nil {
		return err
	}
	if _, err := token.Describe(ctx); err != nil {
		return err
	}
	kcv, err := token.CheckValue(ctx, key.ID)
	if err != nil {
		return err
	}
	blob, err := token.Wrap(ctx, hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki})
	if err != nil {
		return err
	}
	value, err := unwrap(private, blob, hsm.OAEPSHA1)
	if err != nil {
		return err
	}
	if opened, ok := checkValueOf(value); !ok || opened != kcv {
		return errors.New("what was wrapped is not the key")
	}
	return errors.Join(token.Health(ctx), token.DestroyKey(ctx, key.ID))
}

func TestHealth(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	if err := token.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	shim.arm(t, "C_GenerateRandom before 0xE0")
	wantReason(t, token.Health(t.Context()), hsm.TokenGone)
	shim.arm(t, "C_GenerateRandom before 0x121") // no generator: the device answered all the same
	if err := token.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
}
