package authz

import (
	"strings"
	"testing"
)

func template(t testing.TB, text string) Template {
	t.Helper()
	parsed, err := ParseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestPolicy is the policy matrix: users, groups, units, applications, operations, keys and
// contexts, and the number of the grant that decides each.
func TestPolicy(t *testing.T) {
	policy := NewPolicy([]Grant{ // counted from 1
		{Keys: []string{"payments"}, Operations: []Operation{Encrypt, Decrypt}, UIDs: []uint32{1000}},
		{Keys: []string{"logs-*"}, Operations: []Operation{Encrypt}, GIDs: []uint32{50}},
		{Keys: []string{"[broken"}, Operations: []Operation{Encrypt}, UIDs: []uint32{1000}},
		{Keys: []string{"billing"}, Operations: Operations(), Units: []string{"billing.service", "billing@*.service"}},
		{Keys: []string{"escaped"}, Operations: []Operation{Encrypt}, Units: []string{`a\x2db.service`}},
		{Effect: Deny, Keys: []string{"*"}, Operations: []Operation{Decrypt}, UIDs: []uint32{1001}},
		{Keys: []string{"*"}, Operations: []Operation{Encrypt, Decrypt}, GIDs: []uint32{60}},
		{Effect: Deny, Keys: []string{"vault"}, Operations: Operations(), Units: []string{"web.service"}},
		{Keys: []string{"tenants"}, Operations: []Operation{Decrypt}, GIDs: []uint32{70},
			Context: map[string]Template{"tenant": template(t, "{user}"), "purpose": template(t, "mail")}},
		{Keys: []string{"mixed"}, Operations: []Operation{Decrypt}, UIDs: []uint32{1002}, Context: map[string]Template{"by": template(t, "u{uid}/{unit}")}},
		{Effect: Deny, Keys: []string{"mixed"}, Operations: []Operation{Decrypt}, UIDs: []uint32{1002}, Context: map[string]Template{"env": template(t, "prod")}},
		{Effect: Deny, Keys: []string{"tenants"}, Operations: []Operation{Decrypt}, GIDs: []uint32{70}, Context: map[string]Template{"former": template(t, "{user}")}},
		{Keys: []string{"shop"}, Operations: []Operation{Encrypt, Decrypt}, Apps: []string{"web", "web-*"}}, // 13
		{Effect: Deny, Keys: []string{"shop"}, Operations: []Operation{Decrypt}, Apps: []string{"web-old"}},
		{Keys: []string{"own"}, Operations: []Operation{Encrypt}, Apps: []string{"*"}, UIDs: []uint32{0, 1000}, Context: map[string]Template{"app": template(t, "{app}")}},
		{Keys: []string{"zero"}, Operations: Operations(), UIDs: []uint32{0}, GIDs: []uint32{0}},
		{Keys: []string{"nobodys"}, Operations: []Operation{Encrypt}, Apps: []string{"*"}, Context: map[string]Template{"by": template(t, "{uid}")}},
		{Effect: Deny, Keys: []string{"barred"}, Operations: []Operation{Encrypt}, Units: []string{"*"}},
		{Keys: []string{"barred"}, Operations: []Operation{Encrypt}, Apps: []string{"*"}, Units: []string{"*"}},
	})
	app := func(name string) Caller { return Caller{App: name} }
	alice := Caller{UID: 1000, GID: 1000, User: "alice"}
	logger := Caller{UID: 2000, GID: 50}
	bob := Caller{UID: 1001, GID: 60}
	eve := Caller{UID: 2001, GID: 60}
	tenant := Caller{UID: 2002, GID: 2002, Groups: []uint32{5, 70}, User: "dora"}
	stranger := Caller{UID: 2002, GID: 70}
	carl := Caller{UID: 1002, GID: 1002, Unit: Unit{Name: "c.service"}}
	in := func(unit string) Caller { return Caller{UID: 3000, GID: 3000, Unit: Unit{Name: unit}} }
	lost := func(c Caller) Caller { c.Unit = Unit{Unknown: true, Why: "the process has ended"}; return c }
	type entries = map[string]string
	tests := []struct {
		name    string
		caller  Caller
		op      Operation
		key     string
		context entries
		want    bool
		by      int
	}{
		{"granted by uid", alice, Decrypt, "payments", nil, true, 1},
		{"other operation", alice, GenerateDataKey, "payments", nil, false, 0},
		{"other key", alice, Decrypt, "payments2", nil, false, 0},
		{"granted by gid and glob", logger, Encrypt, "logs-web", nil, true, 2},
		{"glob does not cross its prefix", logger, Encrypt, "log", nil, false, 0},
		{"glob does not cross a slash", logger, Encrypt, "logs-a/b", nil, false, 0},
		{"gid grants nothing more", logger, Decrypt, "logs-web", nil, false, 0},
		{"granted by supplementary group", Caller{UID: 7, GID: 7, Groups: []uint32{6, 50}}, Encrypt, "logs-web", nil, true, 2},
		{"uid is not compared with gids", Caller{UID: 50, GID: 9}, Encrypt, "logs-web", nil, false, 0},
		{"gid is not compared with uids", Caller{UID: 9, GID: 1000, Groups: []uint32{1000}}, Encrypt, "payments", nil, false, 0},
		{"root is nobody special", Caller{}, Encrypt, "payments", nil, false, 0},
		{"root in a unit is nobody special", Caller{Unit: Unit{Name: "sshd.service"}}, Encrypt, "payments", nil, false, 0},
		{"a malformed pattern matches nothing", alice, Encrypt, "broken", nil, false, 0},

		{"granted by unit", in("billing.service"), Decrypt, "billing", nil, true, 4},
		{"granted by glob on units", in("billing@eu.service"), GenerateDataKey, "billing", nil, true, 4},
		{"longer name of a unit", in("billing.service.service"), Decrypt, "billing", nil, false, 0},
		{"no unit", in(""), Decrypt, "billing", nil, false, 0},
		{"unknown unit", lost(in("")), Decrypt, "billing", nil, false, 0},
		{"a name beside unknown does not count", Caller{Unit: Unit{Name: "billing.service", Unknown: true}}, Decrypt, "billing", nil, false, 0},
		{"name of a unit with a backslash", in(`a\x2db.service`), Encrypt, "escaped", nil, true, 5},
		{"which is no escape", in("ax2db.service"), Encrypt, "escaped", nil, true, 5},

		{"denied after an earlier grant", Caller{UID: 1001, GID: 50}, Decrypt, "logs-web", nil, false, 6},
		{"denied before a later grant", bob, Decrypt, "payments", nil, false, 6},
		{"deny is for its operations", bob, Encrypt, "payments", nil, true, 7},
		{"deny is for its callers", eve, Decrypt, "payments", nil, true, 7},
		{"denied by unit", Caller{UID: 2001, GID: 60, Unit: Unit{Name: "web.service"}}, Encrypt, "vault", nil, false, 8},
		{"other unit is not", Caller{UID: 2001, GID: 60, Unit: Unit{Name: "batch.service"}}, Encrypt, "vault", nil, true, 7},
		{"no unit is not", eve, Encrypt, "vault", nil, true, 7},
		{"unknown unit might be the denied one", lost(eve), Encrypt, "vault", nil, false, 8},
		{"deny by unit is for its keys", lost(eve), Encrypt, "payments", nil, true, 7},

		{"context as required", tenant, Decrypt, "tenants", entries{"tenant": "dora", "purpose": "mail"}, true, 9},
		{"and more", tenant, Decrypt, "tenants", entries{"tenant": "dora", "purpose": "mail", "x": ""}, true, 9},
		{"entry is missing", tenant, Decrypt, "tenants", entries{"tenant": "dora"}, false, 0},
		{"no context", tenant, Decrypt, "tenants", nil, false, 0},
		{"another's name", tenant, Decrypt, "tenants", entries{"tenant": "alice", "purpose": "mail"}, false, 0},
		{"the template itself", tenant, Decrypt, "tenants", entries{"tenant": "{user}", "purpose": "mail"}, false, 0},
		{"caller without a name", stranger, Decrypt, "tenants", entries{"tenant": "", "purpose": "mail"}, false, 0},
		{"uid and unit", carl, Decrypt, "mixed", entries{"by": "u1002/c.service"}, true, 10},
		{"without a unit", Caller{UID: 1002}, Decrypt, "mixed", entries{"by": "u1002/"}, false, 0},
		{"unknown unit in a template", lost(carl), Decrypt, "mixed", entries{"by": "u1002/"}, false, 0},
		{"denied by context", carl, Decrypt, "mixed", entries{"by": "u1002/c.service", "env": "prod"}, false, 11},
		{"denied context is another", carl, Decrypt, "mixed", entries{"by": "u1002/c.service", "env": "test"}, true, 10},
		{"denied by template", tenant, Decrypt, "tenants", entries{"tenant": "dora", "purpose": "mail", "former": "dora"}, false, 12},
		{"denied template is another", tenant, Decrypt, "tenants", entries{"tenant": "dora", "purpose": "mail", "former": "x"}, true, 9},
		{"granted by name of an application", app("web"), Decrypt, "shop", nil, true, 13},
		{"granted by glob on applications", app("web-new"), Decrypt, "shop", nil, true, 13},
		{"application denied", app("web-old"), Decrypt, "shop", nil, false, 14},
		{"other operation of it", app("web-old"), Encrypt, "shop", nil, true, 13},
		{"other application", app("webshop"), Decrypt, "shop", nil, false, 0},
		{"user named like an application", Caller{UID: 7, User: "web"}, Decrypt, "shop", nil, false, 0},
		{"unit named like an application", in("web"), Decrypt, "shop", nil, false, 0},
		{"an application's own name", app("shop"), Encrypt, "own", entries{"app": "shop"}, true, 15},
		{"another application's name", app("shop"), Encrypt, "own", entries{"app": "web"}, false, 0},
		{"a user has no application's name", alice, Encrypt, "own", entries{"app": ""}, false, 0},
		{"an application is not root", app("web"), Encrypt, "zero", nil, false, 0},
		{"nor when it is called so", app("root"), Encrypt, "zero", nil, false, 0},
		{"root is", Caller{}, Encrypt, "zero", nil, true, 16},
		{"an application has no uid", app("web"), Encrypt, "nobodys", entries{"by": "0"}, false, 0},
		{"an application is in no unit", app("web"), Encrypt, "barred", nil, true, 19},
		{"and not in an unknown one", lost(app("web")), Encrypt, "barred", nil, true, 19},

		{"denied template without a value", stranger, Decrypt, "tenants", entries{"former": "x"}, false, 12},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			request := Request{Caller: tt.caller, Operation: tt.op, Key: tt.key, Context: tt.context}
			got := policy.Decide(request)
			if number, _, _ := got.Grant(); got.Allowed != tt.want || number != tt.by {
				t.Errorf("%v %s %s %v: got %v by grant %d, want %v by %d", tt.caller, tt.op, tt.key, tt.context, got.Allowed, number, tt.want, tt.by)
			}
		})
	}
	if NewPolicy(nil).Decide(Request{Caller: alice, Operation: Encrypt, Key: "payments"}).Allowed {
		t.Error("a policy without grants allows something")
	}
	if (Decision{}).Allowed {
		t.Error("no decision allows something")
	}
}

func TestExplain(t *testing.T) {
	policy := NewPolicy([]Grant{
		{Keys: []string{"k"}, Operations: []Operation{Encrypt}, UIDs: []uint32{1}, At: "f:1"},
		{Keys: []string{"k"}, Operations: []Operation{Decrypt}, UIDs: []uint32{2}, At: "f:5"},
		{Keys: []string{"l"}, Operations: []Operation{Decrypt}, UIDs: []uint32{1}, At: "f:9"},
		{Keys: []string{"k"}, Operations: []Operation{Decrypt}, UIDs: []uint32{1}, Context: map[string]Template{"tenant": template(t, "a")}, At: "f:13"},
		{Keys: []string{"k"}, Operations: []Operation{Decrypt}, UIDs: []uint32{1}, Effect: Deny, At: "f:17"},
	})
	var got []string
	for _, c := range policy.Explain(Request{Caller: Caller{UID: 1}, Operation: Decrypt, Key: "k"}) {
		got = append(got, c.At+" "+c.Misses)
	}
	want := "f:1 operation, f:5 caller, f:9 key, f:13 context entry tenant, f:17 "
	if strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %q", strings.Join(got, ", "), want)
	}
}

func TestTemplate(t *testing.T) {
	caller := Caller{UID: 1000, User: "alice", Unit: Unit{Name: "web.service"}}
	for text, want := range map[string]string{
		"": "", "a": "a", "{user}": "alice", "{uid}": "1000", "{unit}": "web.service",
		"x-{user}-{uid}": "x-alice-1000", "{user}{user}": "alicealice", "$user": "$user",
	} {
		parsed := template(t, text)
		if got, known := parsed.expand(&caller); !known || got != want || parsed.String() != text {
			t.Errorf("%q is %q, %v; want %q", parsed, got, known, want)
		}
	}
	for _, text := range []string{"{", "}", "{}", "{user", "user}", "{{user}}", "{User}", "{user }", "{gid}", "a}b{user}"} {
		if parsed, err := ParseTemplate(text); err == nil || !strings.Contains(err.Error(), "{user}, {uid}, {unit}, {app}") {
			t.Errorf("%q was read as %+v, %v", text, parsed, err)
		}
	}
	for _, text := range []string{"{user}", "x{unit}", "{app}"} {
		parsed := template(t, text)
		if got, known := parsed.expand(&Caller{}); known {
			t.Errorf("%q of nobody is %q", text, got)
		}
	}
	app := Caller{App: "web", User: "root", Unit: Unit{Name: "a.service"}}
	for _, text := range []string{"{user}", "{uid}", "{unit}", "{app}{uid}"} {
		parsed := template(t, text)
		if got, known := parsed.expand(&app); known {
			t.Errorf("%q of an application is %q", text, got)
		}
	}
	named := template(t, "a/{app}")
	if got, known := named.expand(&app); !known || got != "a/web" {
		t.Errorf("%v is %q, %v", named, got, known)
	}
}

func TestLocalCaller(t *testing.T) {
	root, err := LocalCaller("root", []string{"4294967294", "root"})
	if err != nil || root.UID != 0 || root.GID != 0 || root.User != "root" || len(root.Groups) < 2 || root.Unit.Unknown {
		t.Errorf("root is %+v, %v", root, err)
	}
	if byNumber, err := LocalCaller("0", nil); err != nil || byNumber.User != "root" {
		t.Errorf("uid 0 is %+v, %v", byNumber, err)
	}
	// Whose group is not known must not be taken for root's.
	if unknown, err := LocalCaller("4294967200", nil); err != nil || unknown.UID != 4294967200 || unknown.GID != noGroup || unknown.User != "" {
		t.Errorf("a uid that is not in /etc/passwd is %+v, %v", unknown, err)
	}
	for _, name := range []string{"", "no-such-user", "-1", "4294967296"} {
		if c, err := LocalCaller(name, nil); err == nil {
			t.Errorf("user %q is %+v", name, c)
		}
	}
	if c, err := LocalCaller("root", []string{"no-such-group"}); err == nil {
		t.Errorf("a group that is not there: %+v", c)
	}
}
