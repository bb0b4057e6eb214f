package pkcs11

import (
	"context"
	"runtime"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestIdleSessionThatDiedIsReplaced(t *testing.T) {
	_, shim, config := newShim(t)
	config.MaxSessions = 1
	token := openToken(t, config)
	key := generate(t, token)
	opened := shim.calls(t, "C_OpenSession")
	for _, code := range []string{"0xB0", "0xB3"} {
		shim.arm(t, "C_FindObjectsInit before %s", code)
		if _, err := token.Key(t.Context(), key.ID); err != nil {
			t.Fatalf("%s on an idle session: %v", code, err)
		}
	}
	if n := shim.calls(t, "C_OpenSession") - opened; n != 2 {
		t.Errorf("%d sessions were opened, want 2", n)
	}
}

func TestFreshSessionThatDiesIsNotRetried(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	shim.arm(t, "C_FindObjectsInit always 0xB3")
	defer shim.disarm()
	_, err := token.Keys(t.Context())
	wantReason(t, err, hsm.TokenGone)
	if n := shim.calls(t, "C_FindObjectsInit"); n != 1 {
		t.Errorf("tried %d times", n)
	}
}

func TestFailedSessionsAreClosed(t *testing.T) {
	_, shim, config := newShim(t)
	config.MaxSessions = 1
	token := openToken(t, config)
	key := generate(t, token)
	shim.arm(t, "C_GetAttributeValue before 0x30")
	_, err := token.Key(t.Context(), key.ID)
	wantReason(t, err, hsm.TokenGone)
	if n := shim.calls(t, "C_CloseSession"); n != 1 {
		t.Errorf("C_CloseSession was called %d times", n)
	}
	if _, err := token.Key(t.Context(), key.ID); err != nil {
		t.Errorf("the place of the closed session is lost: %v", err)
	}
}

func TestFunctionFailed(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	shim.arm(t, "C_FindObjectsInit before 0x06")
	_, err := token.Keys(t.Context())
	wantReason(t, err, hsm.Internal) // the session still answers
}

func TestContextEndsWhileWaitingForSession(t *testing.T) {
	_, shim, config := newShim(t)
	config.MaxSessions = 1
	token := openToken(t, config)
	release, done := block(t, shim, token)
	defer done()
	defer release()

	deadline, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	<-deadline.Done()
	wantReason(t, token.Health(deadline), hsm.Busy)

	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() { waiting <- token.Health(ctx) }()
	cancel()
	wantReason(t, <-waiting, hsm.Timeout)
}

func TestChangesRunAlone(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	release, done := block(t, shim, token)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := token.GenerateKey(ctx, hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"})
	wantReason(t, err, hsm.Timeout)

	generated := make(chan error)
	go func() {
		_, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"})
		generated <- err
	}()
	for !changeWaits(token) {
		runtime.Gosched()
	}
	if shim.calls(t, "C_GenerateKey") != 0 {
		t.Error("a key was generated beside another call")
	}
	release()
	done()
	if err := <-generated; err != nil {
		t.Fatal(err)
	}
	if n := len(token.pool.places); n != token.pool.size {
		t.Errorf("%d of %d places were given back", n, token.pool.size)
	}
}

func TestCloseWhileBusy(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	release, done := block(t, shim, token)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantReason(t, token.Close(ctx), hsm.Timeout)
	if n := shim.calls(t, "C_Finalize"); n != 0 {
		t.Fatal("the library was finalised under a running call")
	}
	wantReason(t, token.Health(t.Context()), hsm.TokenGone)

	closed := make(chan error)
	go func() { closed <- token.Close(t.Context()) }()
	release()
	done()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if n := shim.calls(t, "C_Finalize"); n != 1 {
		t.Errorf("C_Finalize was called %d times", n)
	}
	if err := token.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
	_, err := token.Keys(t.Context())
	wantReason(t, err, hsm.TokenGone)
}

// changeWaits reports whether a call waits to be alone in the library.
func changeWaits(token *Token) bool {
	if !token.pool.gate.places.TryAcquire(int64(shared)) {
		return true // nobody overtakes it
	}
	token.pool.gate.leave(shared)
	return false
}

// block occupies a session inside the library until release is called; done
// waits for the call and demands that it succeeded.
func block(t *testing.T, shim *shim, token *Token) (release, done func()) {
	t.Helper()
	shim.arm(t, "C_GenerateRandom block")
	result := make(chan error, 1)
	go func() { result <- token.Health(context.Background()) }()
	for shim.calls(t, "blocked") == 0 {
		select {
		case err := <-result:
			t.Fatalf("the call did not block: %v", err)
		default:
		}
	}
	return shim.disarm, func() {
		if err := <-result; err != nil {
			t.Errorf("the call in flight: %v", err)
		}
	}
}

func TestShares(t *testing.T) {
	for _, test := range []struct {
		configured, proxied     int
		rw, all                 uint
		wantEngine, wantProxied int
	}{
		{8, 8, 0, 0, 8, 8},
		{8, 8, ^uint(0), ^uint(0), 8, 8},
		{2, 8, 100, 100, 2, 8},
		{8, 8, 17, 0, 8, 8},
		{8, 8, 16, 0, 8, 7},
		{8, 8, 0, 9, 4, 4},
		{8, 2, 9, 0, 6, 2},
		{8, 8, 5, 0, 2, 2},
		{8, 8, 4, 0, 3, 0},
		{8, 8, 2, 2, 1, 0},
	} {
		config := Config{MaxSessions: test.configured, ProxySessions: test.proxied}
		engine, proxied, err := shares(config, p11.TokenInfo{MaxRwSessionCount: test.rw, MaxSessionCount: test.all})
		if err != nil || engine != test.wantEngine || proxied != test.wantProxied {
			t.Errorf("shares(%+v) = %d, %d, %v", test, engine, proxied, err)
		}
	}
	_, _, err := shares(Config{MaxSessions: 8, ProxySessions: 8}, p11.TokenInfo{MaxRwSessionCount: 1})
	wantReason(t, err, hsm.Misconfigured)
}
