package broker

import (
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// TestAppKeys: each key that is issued or revoked is in the trail by its ID.
func TestAppKeys(t *testing.T) {
	h := newHouse(t)
	key, secret, err := h.IssueAppKey(t.Context(), alice, "web")
	if err != nil || secret == "" {
		t.Fatal(err)
	}
	recorded := func(action string, outcome audit.Outcome, id string) {
		t.Helper()
		r := h.lastRecord(t)
		if r.Action != action || r.Outcome != outcome || r.Details[audit.DetailAccessKey] != id || r.Caller == nil || r.Caller.UID != alice.Caller.UID {
			t.Errorf("%+v, want %s %s of %s", r, action, outcome, id)
		}
	}
	recorded(audit.AppIssue, audit.Done, key.ID)
	for _, name := range []string{"", "-web", "a b", "a/b", "ä"} {
		_, _, err := h.IssueAppKey(t.Context(), alice, name)
		refused(t, err, "APP_NAME")
	}
	recorded(audit.AppIssue, audit.Failed, "")
	if _, err := h.RevokeAppKeys(t.Context(), alice, "web"); err != nil {
		t.Fatal(err)
	}
	recorded(audit.AppRevoke, audit.Done, key.ID)
	if _, _, ok := h.AppSecret(key.ID); ok {
		t.Error("revoked, and known")
	}
	_, err = h.RevokeAppKeys(t.Context(), alice, "web")
	refused(t, err, "APP_NOT_FOUND")
}

// TestUnrecordedAppKeys: a key whose issue cannot be recorded is nobody's, and a
// revocation holds nevertheless.
func TestUnrecordedAppKeys(t *testing.T) {
	h := newHouse(t)
	key, _, err := h.IssueAppKey(t.Context(), alice, "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Audit.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.IssueAppKey(t.Context(), alice, "web"); failure.From(err).Reason != "AUDIT" {
		t.Errorf("issued: %v", err)
	}
	if keys := h.AppKeys(); len(keys) != 1 {
		t.Errorf("%+v", keys)
	}
	if _, err := h.RevokeAppKeys(t.Context(), alice, key.ID); failure.From(err).Reason != "AUDIT" {
		t.Errorf("revoked: %v", err)
	}
	if keys := h.AppKeys(); len(keys) != 0 {
		t.Errorf("%+v", keys)
	}
}
