package ram_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/ram"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const (
	accountID  = "1000000000000001"
	rootID     = "LTAIroot"
	rootSecret = "root-secret"
)

// fixture is an account whose state is kept in saved, and a clock that the test
// moves.
type fixture struct {
	t       *testing.T
	account *ram.Account
	saved   []byte
	now     time.Time
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, now: time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)}
	f.restart()
	return f
}

// restart makes the account anew from what it saved.
func (f *fixture) restart() {
	f.t.Helper()
	account, err := ram.New(ram.Config{
		ID: accountID, RootID: rootID, RootSecret: rootSecret, State: f.saved,
		Save: func(state []byte) error { f.saved = state; return nil }, Now: func() time.Time { return f.now },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.account = account
}

type params map[string]string

// credentials are of whoever calls.
type credentials struct{ id, token string }

var root = credentials{id: rootID}

// answer is what came back, as JSON would carry it.
type answer map[string]any

func (a answer) text(path ...string) string {
	var v any = map[string]any(a)
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

func (a answer) list(outer, inner string) []any {
	m, _ := a[outer].(map[string]any)
	l, _ := m[inner].([]any)
	return l
}

// try makes a call and returns the code of its error, "" for none.
func (f *fixture) try(who credentials, version, action string, p params) (answer, string) {
	f.t.Helper()
	all := map[string]string{}
	maps.Copy(all, p)
	r := &wire.Request{Action: action, Version: version, Params: all, Source: netip.MustParseAddr("192.0.2.1")}
	var result any
	identity, err := f.account.Identify(who.id, who.token)
	if err == nil && version == ram.STSVersion {
		result, err = f.account.ServeSTS(r, identity)
	} else if err == nil {
		result, err = f.account.Serve(r, identity)
	}
	if err != nil {
		e, ok := err.(*wire.Error) //nolint:errorlint // what services answer
		if !ok {
			f.t.Fatalf("%s: %v", action, err)
		}
		return nil, e.Code
	}
	if result == nil {
		return nil, ""
	}
	data, err := json.Marshal(result)
	if err != nil {
		f.t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		f.t.Fatal(err)
	}
	return a, ""
}

// ok is a call of the root to RAM that has to work.
func (f *fixture) ok(action string, p params) answer {
	f.t.Helper()
	a, code := f.try(root, ram.APIVersion, action, p)
	if code != "" {
		f.t.Fatalf("%s answered %s", action, code)
	}
	return a
}

// refused is a call of the root to RAM that has to fail.
func (f *fixture) refused(code, action string, p params) {
	f.t.Helper()
	if _, got := f.try(root, ram.APIVersion, action, p); got != code {
		f.t.Errorf("%s %v answered %q, want %s", action, p, got, code)
	}
}

// document is a policy around statements.
func document(statements string) string { return `{"Version":"1","Statement":[` + statements + `]}` }

const allowAll = `{"Effect":"Allow","Action":"*","Resource":"*"}`

// policy makes a policy and attaches it to a user.
func (f *fixture) policy(user, name, statements string) {
	f.t.Helper()
	f.ok("CreatePolicy", params{"PolicyName": name, "PolicyDocument": document(statements)})
	f.ok("AttachPolicyToUser", params{"PolicyType": "Custom", "PolicyName": name, "UserName": user})
}

// user makes a user with an AccessKey.
func (f *fixture) user(name string) credentials {
	f.t.Helper()
	f.ok("CreateUser", params{"UserName": name})
	return credentials{id: f.ok("CreateAccessKey", params{"UserName": name}).text("AccessKey", "AccessKeyId")}
}
