package proxy

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/proxy/proxytest"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// rows are those of a table of docs/pkcs11.md whose first column begins so, by each of
// the words in that column.
func rows(t *testing.T, begins string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/pkcs11.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| `"+begins) {
			continue
		}
		columns := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for _, word := range words(columns[0]) {
			if found[word] != nil {
				t.Errorf("docs/pkcs11.md has %s twice", word)
			}
			found[word] = columns
		}
	}
	return found
}

// words are what a column has in code spans.
func words(column string) (all []string) {
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(column, -1) {
		all = append(all, match[1])
	}
	return all
}

// TestDocumentedFunctions: docs/pkcs11.md says of every function who answers it and which
// operations it takes.
func TestDocumentedFunctions(t *testing.T) {
	documented, known := rows(t, "C_"), map[string]bool{}
	for f := cryptoki.Initialize; f <= cryptoki.DeriveKey2; f++ {
		known[f.String()] = true
		row := documented[f.String()]
		if len(row) != 4 {
			t.Errorf("docs/pkcs11.md does not have %v: %q", f, row)
			continue
		}
		who, free := try(t, f)
		if said := strings.TrimSpace(row[1]); said != who {
			t.Errorf("docs/pkcs11.md says %q of %v, which is for: %s", said, f, who)
		}
		var takes []string
		for _, op := range authz.ObjectOperations() {
			if _, got := try(t, f, op); got != free {
				takes = append(takes, string(op))
			}
		}
		if len(takes) > 1 { // who may not find a key may do nothing with it
			takes = slices.DeleteFunc(takes, func(op string) bool { return op == string(authz.ObjectFind) })
		}
		said := words(row[2])
		slices.Sort(said)
		slices.Sort(takes)
		if !slices.Equal(said, takes) {
			t.Errorf("docs/pkcs11.md says that %v takes %q, it takes %q", f, said, takes)
		}
	}
	for name := range documented {
		if !known[name] {
			t.Errorf("docs/pkcs11.md has %s, which there is not", name)
		}
	}
}

// outcome is what can be told from the answer to a call.
type outcome struct {
	rv    cryptoki.RV
	found int
}

// try calls a function of a client that may do everything but some operations, and tells
// who answered.
func try(t *testing.T, f cryptoki.Function, denied ...authz.ObjectOperation) (who string, got outcome) {
	h := newHouse(t, grant(1, "*"))
	h.device.Put(proxytest.Key("a", "1")...)
	h.device.Put(proxytest.Key("b", "2")...)
	u := h.user(1)
	s := u.session()
	a, b := u.one(s, "a"), u.one(s, "b")
	for _, k := range steps[f].kinds {
		for init, kind := range begins {
			if kind == k {
				u.want(cryptoki.CKR_OK, example(init, s, a, b))
			}
		}
	}
	if f == cryptoki.FindObjects || f == cryptoki.FindObjectsFinal {
		u.want(cryptoki.CKR_OK, example(cryptoki.FindObjectsInit, s, a, b))
	}
	deny := grant(1, "*")
	deny.Effect, deny.Operations = authz.Deny, denied
	h.allow(grant(1, "*"), deny)
	before := h.device.Count(f)
	got.rv = u.Do(t.Context(), example(f, s, a, b)).RV
	if f == cryptoki.FindObjectsInit {
		got.found = len(u.must(cryptoki.FindObjects, s).List)
	}
	switch {
	case h.device.Count(f) > before:
		return "token", got
	case got.rv == cryptoki.CKR_FUNCTION_NOT_SUPPORTED:
		return "refused", got
	default:
		return "broker", got
	}
}

// example is a call that can succeed.
func example(f cryptoki.Function, s, a, b uint64) *cryptoki.Call {
	c := &cryptoki.Call{Function: f, Numbers: [4]uint64{s, a, b}, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_HMAC}, Room: cryptoki.Room{Size: 64}}
	switch f {
	case cryptoki.GetSlotInfo, cryptoki.GetTokenInfo, cryptoki.GetMechanismList, cryptoki.GetMechanismInfo,
		cryptoki.OpenSession, cryptoki.CloseAllSessions, cryptoki.InitToken, cryptoki.InitToken2:
		c.Numbers = [4]uint64{1, cryptoki.CKF_SERIAL_SESSION}
	case cryptoki.WaitForSlotEvent:
		c.Numbers = [4]uint64{cryptoki.CKF_DONT_BLOCK}
	case cryptoki.CreateObject, cryptoki.GenerateKey, cryptoki.UnwrapKey, cryptoki.DeriveKey, cryptoki.DeriveKey2:
		c.Templates[0] = onToken(proxytest.Key("new", "3"))
	case cryptoki.GenerateKeyPair:
		c.Templates[0], c.Templates[1] = onToken(proxytest.Key("new", "3")), onToken(proxytest.Key("new", "3"))
	case cryptoki.CopyObject, cryptoki.SetAttributeValue:
		c.Templates[0] = []cryptoki.Attribute{label("new")}
	case cryptoki.GetAttributeValue:
		c.Templates[0] = []cryptoki.Attribute{{Type: cryptoki.CKA_LABEL, Length: 64}}
	}
	return c
}

// TestDocumentedRefusals: docs/pkcs11.md has every operation with the return value of its
// refusal.
func TestDocumentedRefusals(t *testing.T) {
	documented := rows(t, "CKR_")
	for _, op := range authz.ObjectOperations() {
		if op == authz.ObjectFind {
			continue // it has none: the object is not there
		}
		row := documented[refusal(op).String()]
		if len(row) != 3 || !slices.Contains(words(row[1]), string(op)) {
			t.Errorf("docs/pkcs11.md does not say that the refusal of %v is %v: %q", op, refusal(op), row)
		}
	}
	for name := range documented {
		known := false
		for rv := range cryptoki.RV(0x300) {
			known = known || rv.String() == name
		}
		if !known {
			t.Errorf("there is no return value %s", name)
		}
	}
}
