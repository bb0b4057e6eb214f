package authz

import (
	"testing"
	"time"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]Rate{
		"100/s": {100, time.Second}, "5/m": {5, time.Minute}, "9999999/h": {9999999, time.Hour},
	} {
		if got, err := ParseRate(text); err != nil || got != want || got.String() != text {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0/s", "1", "1/", "/s", "1/d", "-1/s", "1.5/s", "01/s", "10000000/s", "1/s ", "1/ss"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
	if text := (Rate{}).String(); text != "" {
		t.Errorf("no limit is %q", text)
	}
}

// rated is the decision of a grant to everybody in the group 0 with a rate.
func rated(t *testing.T, rate string) Decision {
	t.Helper()
	parsed, err := ParseRate(rate)
	if err != nil {
		t.Fatal(err)
	}
	d := NewPolicy([]Grant{{Keys: []string{"k"}, Operations: []Operation{Encrypt}, GIDs: []uint32{0}, Rate: parsed}}).
		Decide(Request{Operation: Encrypt, Key: "k"})
	if !d.Allowed {
		t.Fatal("denied")
	}
	return d
}

func TestRateIsForEachUID(t *testing.T) {
	d := rated(t, "2/m")
	now := time.Unix(1000, 0)
	steps := []struct {
		after time.Duration
		uid   uint32
		want  bool
	}{
		{0, 1, true},
		{0, 1, true},
		{0, 1, false},
		{0, 2, true},
		{29 * time.Second, 1, false},
		{time.Second, 1, true}, // half a minute brings one of two back
		{0, 1, false},
		{-time.Hour, 1, false}, // a clock that goes back gives nothing
		{2 * time.Hour, 1, true},
		{0, 1, true},
		{0, 1, false}, // and an hour not more than the rate
	}
	for i, step := range steps {
		now = now.Add(step.after)
		if got := d.Spend(Identity{UID: step.uid}, now); got != step.want {
			t.Fatalf("step %d: uid %d got %v", i, step.uid, got)
		}
	}
	d.Refund(Identity{UID: 1})
	if !d.Spend(Identity{UID: 1}, now) || d.Spend(Identity{UID: 1}, now) {
		t.Error("what was given back is not there, or more")
	}
	for range 10 {
		d.Refund(Identity{UID: 1})
	}
	for i, want := range []bool{true, true, false} {
		if got := d.Spend(Identity{UID: 1}, now); got != want {
			t.Errorf("after too much was given back: operation %d got %v", i+1, got)
		}
	}
}

// TestRateOfApplications: an application pays for itself, and not for root, whose
// uid is the zero of an application's.
func TestRateOfApplications(t *testing.T) {
	d := rated(t, "1/m")
	now := time.Unix(1000, 0)
	web, batch, root := Caller{App: "web"}, Caller{App: "batch"}, Caller{}
	for _, c := range []Caller{web, batch, root} {
		if !d.Spend(c.Identity(), now) || d.Spend(c.Identity(), now) {
			t.Errorf("%v does not have one call to itself", c)
		}
	}
}

func TestNoRateIsNoLimit(t *testing.T) {
	policy := NewPolicy([]Grant{{Keys: []string{"k"}, Operations: []Operation{Encrypt}, UIDs: []uint32{1}}})
	for _, d := range []Decision{policy.Decide(Request{Caller: Caller{UID: 1}, Operation: Encrypt, Key: "k"}), {}} {
		for range 1000 {
			if !d.Spend(Identity{UID: 1}, time.Unix(0, 0)) {
				t.Fatal("limited")
			}
		}
		d.Refund(Identity{UID: 1})
	}
}

// TestAccountsAreBounded: who has many uids gets neither our memory nor a share
// for each of them, and does not take the share of those who were there before.
func TestAccountsAreBounded(t *testing.T) {
	d := rated(t, "1/m")
	now := time.Unix(1000, 0)
	allowed := 0
	for uid := range uint32(10 * maxAccounts) {
		if d.Spend(Identity{UID: uid}, now) {
			allowed++
		}
	}
	if got := len(d.by.spent.each); allowed != maxAccounts+1 || got != maxAccounts {
		t.Errorf("%d uids were allowed and %d kept, want %d with one share for the rest", allowed, got, maxAccounts)
	}
	now = now.Add(time.Minute)
	if !d.Spend(Identity{UID: 7}, now) || !d.Spend(Identity{UID: 99_999}, now) {
		t.Error("a minute later somebody was refused")
	}
	if got := len(d.by.spent.each); got > 2 {
		t.Errorf("%d are kept who have been quiet", got)
	}
}
