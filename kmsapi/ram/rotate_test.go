package ram

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestRotate(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	var first, second, third box
	if _, _, err := a.Rotate(ctx, "app", first.deliver); !NotFound(err) {
		t.Errorf("without a user: %v", err)
	}
	if _, err := a.Provision(ctx, "app", policyFor(t, 1), "", first.deliver); err != nil {
		t.Fatal(err)
	}
	if err := Probe(ctx, a.url, nil, first.key); err != nil {
		t.Fatal(err)
	}
	if _, due, err := a.PlanFinish(ctx, "app", ""); due || err != nil {
		t.Errorf("a rotation that was not begun: %v, %v", due, err)
	}
	old, made, err := a.Rotate(ctx, "app", second.deliver)
	if err != nil || old.ID != first.key.AccessKeyID || made != second.key.AccessKeyID {
		t.Fatalf("%v, %s, %v", old, made, err)
	}
	_, _, err = a.Rotate(ctx, "app", third.deliver)
	two, ok := errors.AsType[*TwoKeysError](err)
	if !ok || len(two.Keys) != 2 || two.Keys[0].ID != old.ID || third.key.AccessKeyID != "" {
		t.Fatalf("with two keys: %v", err)
	}
	if text := err.Error(); !strings.Contains(text, made) || !strings.Contains(text, "last used never") || !strings.Contains(text, "--finish") {
		t.Errorf("the message does not help: %s", text)
	}

	r, due, err := a.PlanFinish(ctx, "app", "")
	if err != nil || !due || r.Keep.ID != made || r.Remove.ID != old.ID || r.Switched() {
		t.Fatalf("before the switch: %+v, %v, %v", r, due, err)
	}
	if err := Probe(ctx, a.url, nil, second.key); err != nil {
		t.Fatal(err)
	}
	if r, _, err = a.PlanFinish(ctx, "app", ""); err != nil || !r.Switched() {
		t.Fatalf("after the switch: %+v, %v", r, err)
	}
	if err := a.FinishRotation(ctx, "app", r); err != nil {
		t.Fatal(err)
	}
	if err := Probe(ctx, a.url, nil, second.key); err != nil {
		t.Errorf("the new key: %v", err)
	}
	keys, err := a.AccessKeys(ctx, "app")
	if err != nil || len(keys) != 1 || keys[0].ID != made {
		t.Errorf("keys %v, %v", keys, err)
	}
	if _, due, err := a.PlanFinish(ctx, "app", made); due || err != nil {
		t.Errorf("finished twice: %v, %v", due, err)
	}
}

func TestKeepOtherKey(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	var first, second box
	if _, err := a.Provision(ctx, "app", policyFor(t, 1), "", first.deliver); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Rotate(ctx, "app", second.deliver); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.PlanFinish(ctx, "app", "LTAIother"); err == nil {
		t.Error("an unknown key could be kept")
	}
	r, due, err := a.PlanFinish(ctx, "app", first.key.AccessKeyID)
	if err != nil || !due || r.Keep.ID != first.key.AccessKeyID || r.Remove.ID != second.key.AccessKeyID {
		t.Errorf("%+v, %v, %v", r, due, err)
	}
	if err := a.deactivateKey(ctx, "app", first.key.AccessKeyID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.PlanFinish(ctx, "app", first.key.AccessKeyID); err == nil || !strings.Contains(err.Error(), "is inactive") {
		t.Errorf("an inactive key could be kept: %v", err)
	}
}

func TestRevoke(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	var first, second box
	if _, err := a.Provision(ctx, "app", policyFor(t, 1), "", first.deliver); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Provision(ctx, "app", policyFor(t, 2), first.key.AccessKeyID, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Rotate(ctx, "app", second.deliver); err != nil {
		t.Fatal(err)
	}
	// The keys die before anything else can fail.
	a.interfere(func(w http.ResponseWriter, action string, _ bool) bool {
		if action != "DetachPolicyFromUser" {
			return false
		}
		fail(w, http.StatusForbidden, "NoPermission")
		return true
	})
	if _, err := a.Revoke(ctx, "app"); !Denied(err) {
		t.Errorf("got %v", err)
	}
	if keys, err := a.listKeys(ctx, "app"); err != nil || len(keys) > 0 {
		t.Errorf("keys %v, %v", keys, err)
	}
	a.interfere(nil)
	if r, err := a.Revoke(ctx, "app"); err != nil || r.Policy != PolicyName("app") {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := a.comments(ctx, "app"); !NotFound(err) {
		t.Errorf("the user: %v", err)
	}
	if _, err := a.policy(ctx, PolicyName("app")); !NotFound(err) {
		t.Errorf("the policy: %v", err)
	}
}

// TestAllKeysAreDeactivatedFirst: a failure between the keys leaves none that
// works.
func TestAllKeysAreDeactivatedFirst(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	var first, second box
	if _, err := a.Provision(ctx, "app", policyFor(t, 1), "", first.deliver); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Rotate(ctx, "app", second.deliver); err != nil {
		t.Fatal(err)
	}
	a.interfere(func(w http.ResponseWriter, action string, _ bool) bool {
		if action != "DeleteAccessKey" {
			return false
		}
		fail(w, http.StatusInternalServerError, "InternalError")
		return true
	})
	if _, err := a.Revoke(ctx, "app"); err == nil {
		t.Fatal("no failure")
	}
	keys, err := a.listKeys(ctx, "app")
	if err != nil || len(keys) != 2 || slices.ContainsFunc(keys, func(k AccessKey) bool { return k.Active }) {
		t.Errorf("keys %v, %v", keys, err)
	}
}
