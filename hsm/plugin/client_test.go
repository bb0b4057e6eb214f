package plugin

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func newSPKI(t testing.TB) []byte {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

func TestCallsTravel(t *testing.T) {
	_, token := open(t, "good")
	info, err := token.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Label != "fake" || info.FIPS != nil || info.MaxSessions != 3 ||
		!slices.Equal(info.WrappingAlgorithms, []hsm.WrappingAlgorithm{hsm.OAEPSHA256, hsm.OAEPSHA1}) ||
		!slices.Equal(info.Policies, []hsm.Policy{{Number: 20, Name: "maximum failed user logins", Value: 10}}) {
		t.Errorf("Describe: %+v", info)
	}
	id := hsm.NewKeyID()
	key, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "payments"})
	if err != nil || key.ID != id || key.Label != "payments" || !key.Local || key.Private || key.Vendor["OUID"] != "0102" {
		t.Errorf("GenerateKey: %+v, %v", key, err)
	}
	keys, err := token.Keys(t.Context())
	if err != nil || len(keys) != 1000 || keys[0].ID != "" || !slices.IsSortedFunc(keys, func(a, b hsm.Key) int {
		return slices.Compare([]byte(a.ID), []byte(b.ID))
	}) {
		t.Errorf("Keys: %d, %v", len(keys), err)
	}
	if value, err := token.CheckValue(t.Context(), id); err != nil || value.String() != "010203" {
		t.Errorf("CheckValue: %s, %v", value, err)
	}
	if wrapped, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: id, Algorithm: hsm.OAEPSHA1, PublicKey: newSPKI(t)}); err != nil || len(wrapped) != 256 {
		t.Errorf("Wrap: %d bytes, %v", len(wrapped), err)
	}
	if sealed, err := token.SealKey(t.Context(), id); err != nil || sealed.ID != id || sealed.Label != "sealed" || sealed.Extractable {
		t.Errorf("SealKey: %+v, %v", sealed, err)
	}
	if err := token.Health(t.Context()); err != nil {
		t.Errorf("Health: %v", err)
	}
	if err := token.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestErrorsTravel(t *testing.T) {
	_, token := open(t, "good")
	for i, reason := range hsm.Reasons() {
		id := hsm.KeyIDFromBytes([]byte{byte(i)})
		err := token.DestroyKey(t.Context(), id)
		got, ok := errors.AsType[*hsm.Error](err)
		want := hsm.Error{Reason: reason, Code: "CKR_" + string(reason), Detail: "destroy key " + string(id)}
		if !ok || *got != want {
			t.Errorf("got %#v, want %#v", err, want)
		}
	}
}

func TestLiesAreRefused(t *testing.T) {
	_, token := open(t, "lying")
	_, err := token.Describe(t.Context())
	wantReason(t, err, hsm.Corrupt)
	_, err = token.Key(t.Context(), hsm.NewKeyID())
	wantReason(t, err, hsm.Corrupt)
	_, err = token.SealKey(t.Context(), hsm.NewKeyID())
	wantReason(t, err, hsm.Corrupt)
	_, err = token.Wrap(t.Context(), hsm.WrapRequest{Key: hsm.NewKeyID(), Algorithm: hsm.OAEPSHA1, PublicKey: newSPKI(t)})
	wantReason(t, err, hsm.Corrupt)
}

func TestBadRequestsAreNotSent(t *testing.T) {
	process, token := open(t, "good")
	process.Kill() // whatever is sent now is TokenGone
	_, err := token.Key(t.Context(), "not hex")
	wantReason(t, err, hsm.Invalid)
	_, err = token.SealKey(t.Context(), "not hex")
	wantReason(t, err, hsm.Invalid)
	_, err = token.Wrap(t.Context(), hsm.WrapRequest{Key: "ab", Algorithm: hsm.OAEPSHA1, PublicKey: []byte("not a key")})
	wantReason(t, err, hsm.Invalid)
}

func TestDeadlineAndCancel(t *testing.T) {
	_, token := open(t, "hang")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantReason(t, token.Health(ctx), hsm.Timeout)

	ctx, cancel = context.WithCancel(t.Context())
	called := make(chan error)
	go func() { called <- token.Health(ctx) }()
	cancel()
	if err := <-called; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCallsInFlightAreBounded(t *testing.T) {
	process, token := open(t, "hang")
	c := process.client
	failed := make(chan error, maxInFlight)
	for range maxInFlight {
		go func() { failed <- token.Health(context.Background()) }()
	}
	for len(c.inFlight) < maxInFlight {
		runtime.Gosched()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := token.Describe(ctx)
	wantReason(t, err, hsm.Busy)
	process.Kill()
	for range maxInFlight {
		if err := <-failed; !errors.Is(err, hsm.TokenGone) {
			t.Errorf("got %v", err)
		}
	}
}
