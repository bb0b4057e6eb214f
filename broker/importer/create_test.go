package importer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// TestLostCreateKey: the answer to CreateKey is lost, and the next attempt
// finds the CMK by its tags instead of making a second one.
func TestLostCreateKey(t *testing.T) {
	b := newBench(t)
	lost := &kmsapi.Error{Operation: "CreateKey", Cause: errors.New("connection reset")}
	b.cloud.create = func() error { return lost }
	if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, lost) {
		t.Fatalf("first attempt: %v", err)
	}
	b.cloud.create = func() error { return nil }
	stop := errors.New("far enough")
	b.cloud.params = func() (*kmsapi.ImportParameters, error) { return nil, stop }
	if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, stop) {
		t.Fatalf("second attempt: %v", err)
	}
	imp, _ := b.Keyring.Import("k")
	if b.cloud.created != 1 || len(b.cloud.cmks) != 1 || b.cloud.cmks[imp.Regions[0].KeyID] != imp.ID {
		t.Errorf("%d CMKs were made (%v), the journal has %s", b.cloud.created, b.cloud.cmks, imp.Regions[0].KeyID)
	}
}

// TestCreateKeyInFlight: the daemon died while CreateKey was on its way, and the
// CMK appears only after the next attempt has begun to look for it.
func TestCreateKeyInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		late := &kmsapi.Error{Operation: "CreateKey", Cause: context.DeadlineExceeded}
		b.cloud.create = func() error {
			for id, importID := range b.cloud.cmks { // not visible yet
				delete(b.cloud.cmks, id)
				time.AfterFunc(createGrace/2, func() { b.cloud.appear(id, importID) })
			}
			return late
		}
		if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, late) {
			t.Fatalf("first attempt: %v", err)
		}
		stop := errors.New("far enough")
		b.cloud.params = func() (*kmsapi.ImportParameters, error) { return nil, stop }
		if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, stop) {
			t.Fatalf("second attempt: %v", err)
		}
		if b.cloud.created != 1 {
			t.Errorf("CreateKey was called %d times", b.cloud.created)
		}
		b.Keyring.Close()
	})
}

// TestGraceOfTheSecondAttempt: the search before it does not use up the time in
// which its own CMK may appear.
func TestGraceOfTheSecondAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		lost := &kmsapi.Error{Operation: "CreateKey", Cause: context.DeadlineExceeded}
		b.cloud.create = func() error {
			for id, importID := range b.cloud.cmks {
				delete(b.cloud.cmks, id)
				if b.cloud.created == 2 { // the first one never appears
					time.AfterFunc(createGrace/2, func() { b.cloud.appear(id, importID) })
				}
			}
			return lost
		}
		for range 2 {
			if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, lost) {
				t.Fatal(err)
			}
		}
		stop := errors.New("far enough")
		b.cloud.params = func() (*kmsapi.ImportParameters, error) { return nil, stop }
		if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, stop) || b.cloud.created != 2 {
			t.Errorf("third attempt: %v after %d CreateKey", err, b.cloud.created)
		}
		b.Keyring.Close()
	})
}

// TestRefusalForgetsNothing: after an attempt whose answer was lost, KMS refuses
// the next ones because the first CMK exists; it is found once its tags are seen.
func TestRefusalForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var made, owner string
		b.cloud.create = func() error {
			for id, importID := range b.cloud.cmks {
				made, owner = id, importID
				delete(b.cloud.cmks, id)
			}
			if b.cloud.created == 1 {
				return &kmsapi.Error{Operation: "CreateKey", Cause: context.DeadlineExceeded}
			}
			return &kmsapi.Error{Operation: "CreateKey", Code: kmsapi.CodeLimitExceeded, Status: 400}
		}
		for range 2 {
			if err := b.importKey(Request{Name: "k", Backend: "hsm"}); err == nil {
				t.Fatal("imported")
			}
		}
		b.cloud.appear(made, owner)
		stop := errors.New("far enough")
		b.cloud.params = func() (*kmsapi.ImportParameters, error) { return nil, stop }
		if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, stop) || b.cloud.created != 2 {
			t.Errorf("the CMK was not found: %v after %d CreateKey", err, b.cloud.created)
		}
		b.Keyring.Close()
	})
}

// TestRefusedCreateKey: what KMS refused cannot appear, so nobody waits for it.
func TestRefusedCreateKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		refused := &kmsapi.Error{Operation: "CreateKey", Code: kmsapi.CodeLimitExceeded, Status: 400}
		b.cloud.create = func() error {
			clear(b.cloud.cmks)
			return refused
		}
		start := time.Now()
		for range 2 {
			if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, refused) {
				t.Fatal(err)
			}
		}
		if b.cloud.created != 2 || time.Since(start) > 0 {
			t.Errorf("%d calls in %v", b.cloud.created, time.Since(start))
		}
		b.Keyring.Close()
	})
}

// TestCanceledCreateKey: the administrator leaves during CreateKey, and its
// answer is journaled all the same.
func TestCanceledCreateKey(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.cloud.create = func() error { cancel(); return nil }
	if _, err := b.Import(ctx, Request{Kind: keyring.NewKey, Name: "k", Backend: "hsm"}, func(Progress) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("import: %v", err)
	}
	if imp, _ := b.Keyring.Import("k"); imp == nil || imp.Regions[0].KeyID == "" {
		t.Errorf("the CMK is not in the journal: %+v", imp)
	}
}
