package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// do makes a call and demands what it is answered with.
func do(t *testing.T, s cryptoki.Session, call *cryptoki.Call, want cryptoki.RV) *cryptoki.Answer {
	t.Helper()
	answer, err := s.Do(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	if answer.RV != want {
		t.Fatalf("%v: %v, want %v", call.Function, answer.RV, want)
	}
	return answer
}

func openSession(t *testing.T, token *Token) cryptoki.Session {
	t.Helper()
	s, err := token.OpenSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// onToken is a template of a key; the value is of a token object or of a session object.
func onToken(token bool) []cryptoki.Attribute {
	return []cryptoki.Attribute{
		cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, token),
		cryptoki.UlongAttribute(cryptoki.CKA_VALUE_LEN, 32),
	}
}

func generation(token bool) *cryptoki.Call {
	return &cryptoki.Call{
		Function: cryptoki.GenerateKey, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_AES_KEY_GEN},
		Templates: [2][]cryptoki.Attribute{onToken(token)},
	}
}

func TestSessionsForClients(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	if n := token.MaxSessions(); n != DefaultProxySessions {
		t.Errorf("MaxSessions: %d", n)
	}
	s := openSession(t, token)

	info := do(t, s, &cryptoki.Call{Function: cryptoki.GetSessionInfo, Numbers: [4]uint64{12345}}, cryptoki.CKR_OK)
	if slot, state := info.Numbers[0], info.Numbers[1]; slot != uint64(token.slot.ID) || state != cryptoki.CKS_RW_USER_FUNCTIONS {
		t.Errorf("slot %d, state %d", slot, state)
	}
	about := do(t, s, &cryptoki.Call{Function: cryptoki.GetTokenInfo, Numbers: [4]uint64{98765}}, cryptoki.CKR_OK).Info.(*cryptoki.TokenInfo)
	if label := bytes.TrimRight(about.Label[:], " "); string(label) != config.TokenLabel {
		t.Errorf("the token is called %s", label)
	}

	key := do(t, s, generation(false), cryptoki.CKR_OK).Numbers[0]
	do(t, s, &cryptoki.Call{
		Function: cryptoki.EncryptInit, Numbers: [4]uint64{0, key}, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_AES_ECB},
	}, cryptoki.CKR_OK)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := shim.calls(t, "C_CloseSession"); n != 1 {
		t.Errorf("C_CloseSession was called %d times", n)
	}
	// Its objects are gone with it, and its number means nothing to another session.
	do(t, openSession(t, token), &cryptoki.Call{Function: cryptoki.GetObjectSize, Numbers: [4]uint64{0, key}}, cryptoki.CKR_OBJECT_HANDLE_INVALID)
}

// What concerns the login or all sessions is not for those who share them.
func TestSessionsCannotReachTheLogin(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	s := openSession(t, token)
	before := shim.calls(t, "C_")
	for _, f := range []cryptoki.Function{
		cryptoki.Initialize, cryptoki.Finalize, cryptoki.GetSlotList, cryptoki.WaitForSlotEvent,
		cryptoki.InitToken, cryptoki.InitToken2, cryptoki.InitPIN, cryptoki.SetPIN,
		cryptoki.OpenSession, cryptoki.CloseSession, cryptoki.CloseAllSessions,
		cryptoki.Login, cryptoki.LoginUser, cryptoki.Logout,
	} {
		do(t, s, &cryptoki.Call{Function: f}, cryptoki.CKR_FUNCTION_NOT_SUPPORTED)
	}
	if n := shim.calls(t, "C_"); n != before {
		t.Errorf("%d calls reached the library", n-before)
	}
}

func TestClientsChangesRunAlone(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	s := openSession(t, token)
	release, done := block(t, shim, token)

	do(t, s, generation(false), cryptoki.CKR_OK) // a session object is made beside the other call
	for _, call := range []*cryptoki.Call{
		generation(true),
		{Function: cryptoki.DestroyObject},
		{Function: cryptoki.SetAttributeValue},
		{Function: cryptoki.CopyObject},
		{Function: cryptoki.CopyObject, Templates: [2][]cryptoki.Attribute{append(onToken(false), onToken(true)...)}},
		{Function: cryptoki.GenerateKeyPair, Templates: [2][]cryptoki.Attribute{onToken(false), onToken(true)}},
		{Function: cryptoki.UnwrapKey, Templates: [2][]cryptoki.Attribute{onToken(true)}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Do(ctx, call); !errors.Is(err, hsm.Timeout) {
			t.Errorf("%v %v: %v", call.Function, call.Templates, err)
		}
	}
	generated := make(chan *cryptoki.Answer)
	go func() {
		answer, _ := s.Do(t.Context(), generation(true))
		generated <- answer
	}()
	for !changeWaits(token) {
		runtime.Gosched()
	}
	release()
	done()
	if answer := <-generated; answer == nil || answer.RV != cryptoki.CKR_OK {
		t.Errorf("answered with %+v", answer)
	}
	if keys, err := token.Keys(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

func TestCloseWaitsForClients(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	s, idle := openSession(t, token), openSession(t, token)
	shim.arm(t, "C_GenerateRandom block")
	answered := make(chan error)
	go func() {
		_, err := s.Do(context.Background(), &cryptoki.Call{Function: cryptoki.GenerateRandom, Room: cryptoki.Room{Size: 8}})
		answered <- err
	}()
	for shim.calls(t, "blocked") == 0 {
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantReason(t, token.Close(ctx), hsm.Timeout)
	if n := shim.calls(t, "C_Finalize"); n != 0 {
		t.Fatal("the library was finalised under a running call")
	}
	shim.disarm()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := token.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := shim.calls(t, "C_")
	for range 2 {
		_, err := idle.Do(t.Context(), &cryptoki.Call{Function: cryptoki.GetSessionInfo})
		wantReason(t, err, hsm.TokenGone)
	}
	_, err := token.OpenSession(t.Context())
	wantReason(t, err, hsm.TokenGone)
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
	if n := shim.calls(t, "C_"); n != before {
		t.Error("the library was called after C_Finalize")
	}
}

func TestSessionThatTheDeviceRefuses(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	shim.arm(t, "C_OpenSession before 0xB1")
	if _, err := token.OpenSession(t.Context()); !errors.Is(err, cryptoki.CKR_SESSION_COUNT) {
		t.Errorf("got %v", err)
	}
}
