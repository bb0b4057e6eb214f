package authz

import (
	"maps"
	"reflect"
	"testing"
)

func TestPermissions(t *testing.T) {
	policy := NewPolicy([]Grant{
		{Keys: []string{"k"}, Operations: []Operation{Encrypt, Decrypt}, UIDs: []uint32{1000},
			Context: map[string]Template{"owner": template(t, "{user}")}},
		{Keys: []string{"k", "spare"}, Operations: []Operation{Encrypt}, GIDs: []uint32{50}},
		{Effect: Deny, Keys: []string{"spare"}, Operations: Operations(), UIDs: []uint32{1000}},
		{Keys: []string{"k"}, Operations: []Operation{GenerateDataKey}, Units: []string{"a.service"}},
		{Keys: []string{"k"}, Operations: []Operation{Decrypt}, UIDs: []uint32{1001}, Context: map[string]Template{"env": template(t, "prod")}},
		{Effect: Deny, Keys: []string{"k"}, Operations: []Operation{Decrypt}, UIDs: []uint32{1001}, Context: map[string]Template{"env": template(t, "prod")}},
	})
	owner := map[string]string{"owner": "alice"}
	for _, test := range []struct {
		name   string
		caller Caller
		key    string
		want   []Permission
	}{
		{"with a context", Caller{UID: 1000, User: "alice"}, "k", []Permission{{Encrypt, owner}, {Decrypt, owner}}},
		{"its template has no value", Caller{UID: 1000}, "k", nil},
		{"the first grant says", Caller{UID: 1000, User: "alice", GID: 50}, "k", []Permission{{Encrypt, owner}, {Decrypt, owner}}},
		{"without a context", Caller{UID: 7, GID: 50}, "k", []Permission{{Encrypt, nil}}},
		{"denied", Caller{UID: 1000, User: "alice", GID: 50}, "spare", nil},
		{"by unit", Caller{UID: 7, Unit: Unit{Name: "a.service"}}, "k", []Permission{{GenerateDataKey, nil}}},
		{"unit unknown", Caller{UID: 7, Unit: Unit{Unknown: true}}, "k", nil},
		{"denied in just that context", Caller{UID: 1001}, "k", nil},
		{"another key", Caller{UID: 1000, User: "alice"}, "other", nil},
	} {
		if got := policy.Permissions(test.caller, test.key); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// TestPermissionsAgree: what Permissions lists is what Decide allows, and what it
// leaves out Decide denies to a request without a context.
func TestPermissionsAgree(t *testing.T) {
	d := newDice(t)
	templates := d.templates(t)
	for range 20_000 {
		var grants []Grant
		for range d.IntN(6) {
			grants = append(grants, d.grant(templates))
		}
		policy, r := NewPolicy(grants), d.request()
		allowed := map[Operation]map[string]string{}
		for _, p := range policy.Permissions(r.Caller, r.Key) {
			allowed[p.Operation] = p.Context
			if r.Operation, r.Context = p.Operation, maps.Clone(p.Context); !policy.Decide(r).Allowed {
				t.Fatalf("%+v: %+v is listed and denied", grants, r)
			}
		}
		for _, operation := range Operations() {
			if _, listed := allowed[operation]; listed {
				continue
			}
			if r.Operation, r.Context = operation, nil; policy.Decide(r).Allowed {
				t.Fatalf("%+v: %+v is not listed and allowed", grants, r)
			}
		}
		if len(allowed) > 0 && !policy.Names(r.Caller) {
			t.Fatalf("%+v: %+v may do something, and no grant names it", grants, r.Caller)
		}
	}
}
