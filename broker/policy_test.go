package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// refused checks the reason of an error, "" for none.
func refused(t *testing.T, err error, reason string) {
	t.Helper()
	got := ""
	if err != nil {
		got = failure.From(err).Reason
	}
	if got != reason {
		t.Errorf("got %q (%v), want %q", got, err, reason)
	}
}

func template(t *testing.T, text string) authz.Template {
	t.Helper()
	parsed, err := authz.ParseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func (h *house) encrypt(t *testing.T, call Call, key string, encryptionContext map[string]string) (string, error) {
	t.Helper()
	sealed, err := h.Encrypt(t.Context(), call, key, "", []byte("secret"), encryptionContext)
	if err != nil {
		return "", err
	}
	return sealed.CiphertextBlob, nil
}

func (h *house) mustEncrypt(t *testing.T, call Call, key string, encryptionContext map[string]string) string {
	t.Helper()
	blob, err := h.encrypt(t, call, key, encryptionContext)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func (h *house) decrypt(t *testing.T, call Call, key, blob string, encryptionContext map[string]string) error {
	t.Helper()
	_, err := h.Decrypt(t.Context(), call, key, "", blob, encryptionContext)
	return err
}

// TestDecryptRuleWithConditions: what a grant demands or denies holds for the key
// that the blob turns out to belong to, not only for the one that let the caller
// in.
func TestDecryptRuleWithConditions(t *testing.T) {
	both := []authz.Operation{authz.Encrypt, authz.Decrypt}
	h := newHouse(t,
		grant(1001, "*", both...),
		grant(1000, "free", both...),
		authz.Grant{Keys: []string{"tenants"}, Operations: both, UIDs: []uint32{1000}, Context: map[string]authz.Template{"tenant": template(t, "{user}")}},
		grant(1000, "closed", both...),
		authz.Grant{Effect: authz.Deny, Keys: []string{"closed"}, Operations: []authz.Operation{authz.Decrypt}, UIDs: []uint32{1000}},
		authz.Grant{Keys: []string{"unit"}, Operations: both, Units: []string{"web.service"}})
	for _, key := range []string{"free", "tenants", "closed", "unit"} {
		h.importKey(t, key)
	}
	alice := Call{Caller: authz.Caller{UID: 1000, User: "alice", Unit: authz.Unit{Name: "web.service"}}, Door: "test"}
	outside := Call{Caller: authz.Caller{UID: 1000, User: "alice", Unit: authz.Unit{Unknown: true, Why: "the process has ended"}}, Door: "test"}
	own, other := map[string]string{"tenant": "alice"}, map[string]string{"tenant": "bob"}

	_, err := h.encrypt(t, alice, "tenants", other)
	refused(t, err, "NO_GRANT")
	_, err = h.encrypt(t, alice, "tenants", nil)
	refused(t, err, "NO_GRANT")
	for _, named := range []string{"", "tenants"} {
		refused(t, h.decrypt(t, alice, named, h.mustEncrypt(t, alice, "tenants", own), own), "")
	}
	for _, foreign := range []map[string]string{other, nil} {
		blob := h.mustEncrypt(t, bob, "tenants", foreign)
		refused(t, h.decrypt(t, alice, "tenants", blob, foreign), "NO_GRANT")
		refused(t, h.decrypt(t, alice, "", blob, foreign), "FOREIGN_CIPHERTEXT")
		refused(t, h.decrypt(t, bob, "", blob, foreign), "")
	}

	blob := h.mustEncrypt(t, alice, "closed", nil)
	refused(t, h.decrypt(t, alice, "closed", blob, nil), "GRANT_DENIES")
	refused(t, h.decrypt(t, alice, "", blob, nil), "FOREIGN_CIPHERTEXT")
	_, err = h.ReEncrypt(t.Context(), alice, ReEncryption{CiphertextBlob: blob, Key: "free"})
	refused(t, err, "FOREIGN_CIPHERTEXT")

	blob = h.mustEncrypt(t, alice, "unit", nil)
	refused(t, h.decrypt(t, alice, "unit", blob, nil), "")
	refused(t, h.decrypt(t, outside, "", blob, nil), "FOREIGN_CIPHERTEXT")
	err = h.decrypt(t, outside, "unit", blob, nil)
	refused(t, err, "NO_GRANT")
	if hint := failure.From(err).Hint; !strings.Contains(hint, "the process has ended") {
		t.Errorf("the hint does not say why the unit is unknown: %s", hint)
	}
}

// TestApplicationIsNotRoot: what root may do, whose uid an application's zero looks
// like, an application may not, and the trail has its name.
func TestApplicationIsNotRoot(t *testing.T) {
	both := []authz.Operation{authz.Encrypt, authz.Decrypt}
	h := newHouse(t, grant(0, "roots", both...), authz.Grant{Keys: []string{"webs"}, Operations: both, Apps: []string{"web"}})
	h.importKey(t, "roots")
	h.importKey(t, "webs")
	root := Call{Door: "test"}
	web := Call{Caller: authz.Caller{App: "web"}, Door: "test"}
	blob := h.mustEncrypt(t, root, "roots", nil)
	_, err := h.encrypt(t, web, "roots", nil)
	refused(t, err, "NO_GRANT")
	if message := failure.From(err).Message; !strings.Contains(message, "no grant lets app web encrypt") {
		t.Error(message)
	}
	refused(t, h.decrypt(t, web, "", blob, nil), "FOREIGN_CIPHERTEXT")
	own := h.mustEncrypt(t, web, "webs", nil)
	refused(t, h.decrypt(t, web, "", own, nil), "")
	refused(t, h.decrypt(t, root, "", own, nil), "FOREIGN_CIPHERTEXT")
	_, err = h.encrypt(t, root, "webs", nil)
	refused(t, err, "NO_GRANT")
	h.UnitsUnknown = "no SO_PEERPIDFD"
	explained, err := h.ExplainPolicy(authz.Request{Caller: web.Caller, Operation: authz.Encrypt, Key: "webs"})
	if err != nil || !explained.Decision.Allowed || explained.Caller.Unit.Unknown {
		t.Errorf("%+v, %v", explained, err)
	}
	refused(t, h.decrypt(t, web, "", own, nil), "")
	if record := h.lastRecord(t); *record.Caller != (audit.Caller{App: "web"}) {
		t.Errorf("%+v", record.Caller)
	}
}

func rated(t *testing.T, g authz.Grant, rate string) authz.Grant {
	t.Helper()
	var err error
	if g.Rate, err = authz.ParseRate(rate); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGrantRate(t *testing.T) {
	h := newHouse(t,
		grant(1001, "other", authz.Encrypt),
		rated(t, authz.Grant{Keys: []string{"k"}, Operations: authz.Operations(), UIDs: []uint32{1000, 1001}}, "3/h"))
	h.importKey(t, "k")
	blob := h.mustEncrypt(t, alice, "k", nil)
	refused(t, h.decrypt(t, alice, "", blob, nil), "")
	_, err := h.GenerateDataKey(t.Context(), alice, "k", "", 32, nil, true)
	refused(t, err, "")
	_, err = h.encrypt(t, alice, "k", nil)
	refused(t, err, authz.ReasonRate)
	if f := failure.From(err); f.Kind != failure.Throttled || !strings.Contains(f.Message, "3/h of grant 2") {
		t.Errorf("%v: %s", f.Kind, f.Message)
	}
	refused(t, h.decrypt(t, alice, "k", blob, nil), authz.ReasonRate)
	refused(t, h.decrypt(t, alice, "", blob, nil), authz.ReasonRate)
	refused(t, h.decrypt(t, bob, "", blob, nil), "")
	h.ahead = 20 * time.Minute
	refused(t, h.decrypt(t, alice, "", blob, nil), "")
	refused(t, h.decrypt(t, alice, "", blob, nil), authz.ReasonRate)
}

// TestGrantRateOfUnnamedKeys: whose grant pays is known when the blob is open.
// Until then another has paid, which gets it back, but not for foreign blobs: KMS
// was asked for them all the same.
func TestGrantRateOfUnnamedKeys(t *testing.T) {
	decrypt := []authz.Operation{authz.Decrypt}
	h := newHouse(t,
		grant(1001, "*", authz.Encrypt),
		rated(t, grant(1000, "a", decrypt...), "2/h"),
		rated(t, grant(1000, "b", decrypt...), "3/h"))
	blobs := map[string]string{}
	for _, key := range []string{"a", "b", "c"} {
		h.importKey(t, key)
		blobs[key] = h.mustEncrypt(t, bob, key, nil)
	}
	for i, step := range []struct{ key, reason string }{
		{"b", ""}, {"b", ""}, {"b", ""}, // paid by a, given back
		{"a", ""},
		{"c", "FOREIGN_CIPHERTEXT"}, // paid by a
		{"a", authz.ReasonRate},
		{"b", authz.ReasonRate},
	} {
		err := h.decrypt(t, alice, "", blobs[step.key], nil)
		if refused(t, err, step.reason); t.Failed() {
			t.Fatalf("at step %d", i)
		}
	}
	h.ahead = 20 * time.Minute // one of b, two thirds of one of a
	refused(t, h.decrypt(t, alice, "", blobs["a"], nil), authz.ReasonRate)
	h.ahead = 40 * time.Minute
	refused(t, h.decrypt(t, alice, "", blobs["a"], nil), "")
}

func TestReload(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt))
	h.importKey(t, "k")
	var next Reloaded
	var broken error
	h.Reload = func() (Reloaded, error) { return next, broken }
	check := func(who Call, reason string) {
		t.Helper()
		_, err := h.encrypt(t, who, "k", nil)
		refused(t, err, reason)
	}

	next = Reloaded{Policy: authz.NewPolicy([]authz.Grant{grant(1001, "k", authz.Encrypt)}, authz.ObjectGrant{}, authz.ObjectGrant{}), Restart: []string{"kms"}}
	from := Call{Caller: authz.Caller{UID: 1, Unit: authz.Unit{Name: "deploy.service"}}, Door: "control"}
	loaded, err := h.ReloadPolicy(t.Context(), from)
	if err != nil || len(loaded.Restart) != 1 {
		t.Fatalf("%+v, %v", loaded, err)
	}
	record := h.lastRecord(t)
	if record.Action != audit.PolicyReload || record.Outcome != audit.Done || record.Door != from.Door || record.Caller == nil || record.Caller.UID != 1 || record.Caller.Unit != "deploy.service" || record.Details[audit.DetailGrants] != "1" || record.Details[audit.DetailObjectGrants] != "2" {
		t.Errorf("recorded %+v", record)
	}
	check(alice, "NO_GRANT")
	check(bob, "")

	broken = errors.New("f:3: unknown key gruops")
	_, err = h.ReloadPolicy(t.Context(), Call{})
	refused(t, err, "CONFIGURATION")
	if f := failure.From(err); f.Kind != failure.Invalid || !strings.Contains(f.Message, "the old policy stays: f:3: unknown key gruops") {
		t.Errorf("%v: %s", f.Kind, f.Message)
	}
	if record := h.lastRecord(t); record.Action != audit.PolicyReload || record.Outcome != audit.Failed || record.Caller != nil {
		t.Errorf("recorded %+v", record)
	}
	check(bob, "")

	// What cannot be recorded is not done.
	next, broken = Reloaded{Policy: authz.NewPolicy(nil)}, nil
	if err := h.Audit.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ReloadPolicy(t.Context(), admin); err == nil {
		t.Error("reloaded without a record")
	}
	if !h.policy.Load().Decide(authz.Request{Caller: bob.Caller, Operation: authz.Encrypt, Key: "k"}).Allowed {
		t.Error("the old policy is gone")
	}
}

func TestExplainPolicy(t *testing.T) {
	h := newHouse(t,
		authz.Grant{Effect: authz.Deny, Keys: []string{"vault"}, Operations: authz.Operations(), Units: []string{"web.service"}, At: "f:10"},
		rated(t, authz.Grant{Keys: []string{"*"}, Operations: []authz.Operation{authz.Encrypt}, UIDs: []uint32{1000}, At: "f:20"}, "1/h"))
	request := authz.Request{Caller: alice.Caller, Operation: authz.Encrypt, Key: "vault"}
	explain := func(change func(*authz.Request), allowed bool, grant int, at, why string) {
		t.Helper()
		r := request
		change(&r)
		e, err := h.ExplainPolicy(r)
		number, gotAt, _ := e.Decision.Grant()
		if err != nil || e.Decision.Allowed != allowed || number != grant || gotAt != at || !strings.Contains(e.Why, why) {
			t.Errorf("%+v, %v; want %v by grant %d at %s: %s", e, err, allowed, grant, at, why)
		}
	}
	before := h.Audit.Head()
	for range 3 { // it does not use the rate up
		explain(func(*authz.Request) {}, true, 2, "f:20", "grant 2 allows it")
	}
	explain(func(r *authz.Request) { r.Caller.Unit.Name = "web.service" }, false, 1, "f:10", "grant 1 denies it")
	explain(func(r *authz.Request) { r.Operation = authz.Decrypt }, false, 0, "", "no grant allows it")
	explain(func(r *authz.Request) { r.Context = map[string]string{"kmsbroker.x": ""} }, false, 0, "", "the broker's own")
	// On a kernel that does not tell, the answer is what the daemon would decide.
	h.UnitsUnknown = "no SO_PEERPIDFD"
	explain(func(*authz.Request) {}, false, 1, "f:10", "grant 1 denies it")
	explain(func(r *authz.Request) { r.Key = "other" }, true, 2, "f:20", "grant 2 allows it")
	if h.Audit.Head() != before {
		t.Error("explaining was recorded")
	}
	request.Operation = "re-encrypt"
	_, err := h.ExplainPolicy(request)
	refused(t, err, "OPERATION")
}

func TestExplainObject(t *testing.T) {
	h := newHouse(t)
	h.policy.Store(authz.NewPolicy(nil,
		authz.ObjectGrant{Effect: authz.Deny, Tokens: []string{"*"}, Labels: []string{"vault"}, Operations: authz.ObjectOperations(), Units: []string{"web.service"}, At: "f:10"},
		authz.ObjectGrant{Tokens: []string{"luna"}, Labels: []string{"*"}, Operations: []authz.ObjectOperation{authz.ObjectSign}, UIDs: []uint32{1000}, At: "f:20"},
		authz.ObjectGrant{Tokens: []string{"luna"}, IDs: []string{"01*"}, Operations: []authz.ObjectOperation{authz.ObjectDecrypt}, UIDs: []uint32{1000}, At: "f:30", PIN: "h"}))
	request := authz.ObjectRequest{Caller: alice.Caller, Operation: authz.ObjectSign, Object: authz.Object{Token: "luna", Label: "vault", ID: []byte{1, 2}}}
	explain := func(change func(*authz.ObjectRequest), allowed bool, at, why string) {
		t.Helper()
		q := request
		change(&q)
		e, err := h.ExplainObject(q)
		if _, gotAt, _ := e.Decision.Grant(); err != nil || e.Decision.Allowed != allowed || gotAt != at || e.Why != why || len(e.Considered) != 3 {
			t.Errorf("%+v, %v; want %v by the grant at %s: %s", e, err, allowed, at, why)
		}
	}
	before := h.Audit.Head()
	explain(func(*authz.ObjectRequest) {}, true, "f:20", "pkcs11 grant 2 allows it")
	explain(func(q *authz.ObjectRequest) { q.Caller.Unit.Name = "web.service" }, false, "f:10", "pkcs11 grant 1 denies it")
	explain(func(q *authz.ObjectRequest) { q.Operation = authz.ObjectDecrypt }, true, "f:30", "pkcs11 grant 3 allows it after a login with its application PIN")
	explain(func(q *authz.ObjectRequest) { q.Object.Token = "other" }, false, "", "no pkcs11 grant allows it")
	h.UnitsUnknown = "no SO_PEERPIDFD"
	explain(func(*authz.ObjectRequest) {}, false, "f:10", "pkcs11 grant 1 denies it")
	if h.Audit.Head() != before {
		t.Error("explaining was recorded")
	}
	bad := request
	bad.Operation = "generate-data-key"
	_, err := h.ExplainObject(bad)
	refused(t, err, "OPERATION")
	bad = request
	bad.Caller = authz.Caller{App: "web"}
	_, err = h.ExplainObject(bad)
	refused(t, err, "CALLER")
}
