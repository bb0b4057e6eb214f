package pkcs11

import (
	"context"
	"fmt"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestSeal(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	key := generate(t, token)
	_, spki := newRSA(t, 2048)
	wrap := hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki}
	if _, err := token.Wrap(t.Context(), wrap); err != nil {
		t.Fatal(err)
	}
	sealed, err := token.SealKey(t.Context(), key.ID)
	if err != nil {
		t.Fatal(err)
	}
	key.Extractable = false
	if fmt.Sprint(sealed) != fmt.Sprint(key) {
		t.Errorf("sealed is %+v, want %+v", sealed, key)
	}

	wraps, imports := shim.calls(t, "C_WrapKey"), shim.calls(t, "C_CreateObject")
	for _, algorithm := range hsm.WrappingAlgorithms() {
		wrap.Algorithm = algorithm
		blob, err := token.Wrap(t.Context(), wrap)
		wantReason(t, err, hsm.NotExportable)
		if blob != nil {
			t.Errorf("%d bytes came with the refusal", len(blob))
		}
	}
	if shim.calls(t, "C_WrapKey") != wraps || shim.calls(t, "C_CreateObject") != imports {
		t.Error("the device was asked to wrap a sealed key")
	}

	_, err = token.GenerateKey(t.Context(), hsm.KeySpec{ID: key.ID, Label: key.Label})
	wantReason(t, err, hsm.AlreadyExists)
	if _, err := token.CheckValue(t.Context(), key.ID); err != nil {
		t.Error(err)
	}
	sets := shim.calls(t, "C_SetAttributeValue")
	again, err := token.SealKey(t.Context(), key.ID)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(sealed) {
		t.Errorf("sealed again: %+v, %v", again, err)
	}
	if shim.calls(t, "C_SetAttributeValue") != sets {
		t.Error("a sealed key was sealed again")
	}
	if err := token.DestroyKey(t.Context(), key.ID); err != nil {
		t.Error(err)
	}
	_, err = token.SealKey(t.Context(), key.ID)
	wantReason(t, err, hsm.NotFound)
}

// The answer to C_SetAttributeValue is lost although the key was sealed.
func TestSealAfterLostAnswer(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	key := generate(t, token)
	shim.arm(t, "C_SetAttributeValue after 0x30")
	_, err := token.SealKey(t.Context(), key.ID)
	wantReason(t, err, hsm.TokenGone)
	if sealed, err := token.SealKey(t.Context(), key.ID); err != nil || sealed.Extractable {
		t.Errorf("the repeat: %+v, %v", sealed, err)
	}
}

func TestSealRefused(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	key := generate(t, token)
	for code, want := range map[uint]hsm.Reason{
		p11.CKR_ATTRIBUTE_READ_ONLY: hsm.NotPermitted, ckrActionProhibited: hsm.NotPermitted, ckrUserNotAuthorized: hsm.NotPermitted,
		ckrOperationNotAllowed: hsm.NotPermitted, p11.CKR_ATTRIBUTE_VALUE_INVALID: hsm.NotPermitted,
		p11.CKR_TEMPLATE_INCONSISTENT: hsm.NotPermitted, p11.CKR_FUNCTION_NOT_SUPPORTED: hsm.NotPermitted,
		p11.CKR_DEVICE_REMOVED: hsm.TokenGone,
		// A device that agrees and does nothing.
		p11.CKR_OK: hsm.Corrupt,
	} {
		t.Run(codeName(code), func(t *testing.T) {
			shim.arm(t, "C_SetAttributeValue before %#x", code)
			_, err := token.SealKey(t.Context(), key.ID)
			wantReason(t, err, want)
			if code != p11.CKR_OK && codeIn(err) != codeName(code) {
				t.Errorf("the error names %q", codeIn(err))
			}
		})
	}
	if read, err := token.Key(t.Context(), key.ID); err != nil || !read.Extractable {
		t.Errorf("after the refusals: %+v, %v", read, err)
	}
}

// A key that nobody may change is refused in the device's own words.
func TestSealUnmodifiable(t *testing.T) {
	token := newToken(t)
	id := hsm.NewKeyID()
	addObject(t, token, p11.NewAttribute(p11.CKA_ID, id.Bytes()), p11.NewAttribute(p11.CKA_MODIFIABLE, false))
	_, err := token.SealKey(t.Context(), id)
	wantReason(t, err, hsm.NotPermitted)
	if codeIn(err) != "CKR_ACTION_PROHIBITED" || !strings.Contains(err.Error(), "policy 11") {
		t.Errorf("the error is %q", err)
	}
}

// A wrap that has begun is over before its key is called sealed.
func TestSealWaitsForWraps(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	key := generate(t, token)
	_, spki := newRSA(t, 2048)
	shim.arm(t, "C_WrapKey block")
	defer shim.disarm()
	wrapped, sealed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := token.Wrap(context.Background(), hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki})
		wrapped <- err
	}()
	for shim.calls(t, "blocked") == 0 {
		if len(wrapped) > 0 {
			t.Fatalf("the wrap did not block: %v", <-wrapped)
		}
	}
	go func() {
		_, err := token.SealKey(context.Background(), key.ID)
		sealed <- err
	}()
	for !changeWaits(token) {
		if len(sealed) > 0 {
			t.Fatalf("the seal did not wait: %v", <-sealed)
		}
	}
	if n := shim.calls(t, "C_SetAttributeValue"); n != 0 {
		t.Error("the key was sealed while it was wrapped")
	}
	shim.disarm()
	if err := <-wrapped; err != nil {
		t.Error(err)
	}
	if err := <-sealed; err != nil {
		t.Error(err)
	}
}

// A handle that is by now another object's is not sealed, nor wrapped.
func TestSealReusedHandle(t *testing.T) {
	token := newToken(t)
	key := generate(t, token)
	onSession(t, token, func(s *session) error {
		object, err := s.findKey(key.ID)
		if err != nil {
			return err
		}
		if _, err := token.seal(s, hsm.NewKeyID(), object); !vanished(err) {
			t.Errorf("seal: %v", err)
		}
		if err := s.checkExtractable(hsm.NewKeyID(), object); !vanished(err) {
			t.Errorf("wrap: %v", err)
		}
		return nil
	})
	if read, err := token.Key(t.Context(), key.ID); err != nil || !read.Extractable {
		t.Errorf("the key is %+v, %v", read, err)
	}
}
