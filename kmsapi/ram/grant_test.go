package ram

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

func TestDocument(t *testing.T) {
	a := "acs:kms:cn-hangzhou:1000000000000001:key/a"
	b := "acs:kms:cn-hangzhou:1000000000000001:key/b"
	got, err := Grant{Keys: []Key{{ARN: b, Alias: "alias/b"}, {ARN: a}}}.Document()
	want := `{"Version":"1","Statement":[{"Effect":"Allow",` +
		`"Action":["kms:Encrypt","kms:Decrypt","kms:GenerateDataKey","kms:GenerateDataKeyWithoutPlaintext","kms:DescribeKey"],` +
		`"Resource":["` + a + `","` + b + `"]}]}`
	if err != nil || got != want {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
}

// TestManageDocument shows the widest policy there is. What is in it is permitted
// in customers' accounts, so a change here is one to think about.
func TestManageDocument(t *testing.T) {
	const (
		base   = "acs:kms:cn-hangzhou:1000000000000001:"
		use    = `"kms:Encrypt","kms:Decrypt","kms:GenerateDataKey","kms:GenerateDataKeyWithoutPlaintext","kms:DescribeKey"`
		manage = `"kms:GetParametersForImport","kms:ImportKeyMaterial","kms:DeleteKeyMaterial","kms:EnableKey","kms:DisableKey",` +
			`"kms:ScheduleKeyDeletion","kms:CancelKeyDeletion","kms:CreateAlias","kms:UpdateAlias","kms:DeleteAlias",` +
			`"kms:UpdateKeyDescription","kms:SetDeletionProtection","kms:ListResourceTags"`
	)
	got, err := Grant{
		Keys:   []Key{{ARN: base + "key/a", Alias: "alias/a"}},
		Manage: &Manage{Regions: []string{"cn-hangzhou"}, Instance: "i-1", Aliases: []string{"alias/a", "alias/new"}},
	}.Document()
	want := `{"Version":"1","Statement":[` +
		`{"Effect":"Allow","Action":[` + use + `],"Resource":["` + base + `key/a"]},` +
		`{"Effect":"Allow","Action":["kms:CreateKey","kms:TagResource","kms:ListKeys","kms:ListAliases","kms:ListTagResources"],` +
		`"Resource":["` + base + `key","` + base + `alias"]},` +
		`{"Effect":"Allow","Action":[` + use + `,` + manage + `,"kms:TagResource","kms:UntagResource"],"Resource":["` + base + `key/*"],` +
		`"Condition":{"StringEquals":{"kms:tag/broker-instance-id":["i-1"]}}},` +
		`{"Effect":"Allow","Action":["kms:ListTagResources"],"Resource":["` + base + `key/*"]},` +
		`{"Effect":"Allow","Action":[` + manage + `],"Resource":["` + base + `key/a"]},` +
		`{"Effect":"Allow","Action":["kms:CreateAlias","kms:UpdateAlias","kms:DeleteAlias"],` +
		`"Resource":["` + base + `alias/a","` + base + `alias/new"]}]}`
	if err != nil || got != want {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
}

func TestDocumentRefused(t *testing.T) {
	var many []Key
	for i := range 100 {
		many = append(many, Key{ARN: fmt.Sprintf("acs:kms:cn-hangzhou:1000000000000001:key/key-%024d", i)})
	}
	good := []Key{{ARN: "acs:kms:cn-hangzhou:1:key/a"}}
	for says, g := range map[string]Grant{
		"needs a key":                {},
		"is not the ARN":             {Keys: []Key{{ARN: "acs:kms:cn-hangzhou:1:key/*"}}},
		`"" is not the ARN`:          {Keys: []Key{{}}},
		"RAM takes 6144":             {Keys: many},
		"instance ID must be known":  {Keys: good, Manage: &Manage{Regions: []string{"cn-hangzhou"}}},
		"the regions and the":        {Keys: good, Manage: &Manage{Regions: []string{"*"}, Instance: "i"}},
		`"alias/*" is not an alias`:  {Keys: good, Manage: &Manage{Regions: []string{"cn-hangzhou"}, Instance: "i", Aliases: []string{"alias/*"}}},
		`"payments" is not an alias`: {Keys: []Key{{ARN: good[0].ARN, Alias: "payments"}}, Manage: &Manage{Regions: []string{"cn-hangzhou"}, Instance: "i"}},
	} {
		if text, err := g.Document(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %s, %v, want %q", g, text, err, says)
		}
	}
}

// may is one call of KMS by a user, and whether the policy permits it.
type may struct {
	name    string
	call    func() error
	allowed bool
}

func (m may) check(t *testing.T) {
	t.Helper()
	err := m.call()
	e, refusal := err.(*kmsapi.Error) //nolint:errorlint // the API promises the bare type
	denied := refusal && e.Code == kmsapi.CodeNoPermission
	if m.allowed && err != nil || !m.allowed && !denied {
		t.Errorf("%s: %v, allowed should be %v", m.name, err, m.allowed)
	}
}

// TestUse: a user may use the keys of the grant and do nothing else.
func TestUse(t *testing.T) {
	a := newAccount(t)
	root := a.rootKMS(t)
	var keys [2]*kmsapi.KeyMetadata
	for i := range keys {
		var err error
		if keys[i], err = root.CreateKey(t.Context(), kmsapi.CreateKeyRequest{Origin: kmsapi.OriginAliyunKMS}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := root.CreateAlias(t.Context(), keys[0].KeyID, "alias/payments"); err != nil {
		t.Fatal(err)
	}
	document, err := Grant{Keys: []Key{{ARN: keys[0].ARN, Alias: "alias/payments"}}}.Document()
	if err != nil {
		t.Fatal(err)
	}
	var b box
	if _, err := a.Provision(t.Context(), "app", document, "", b.deliver); err != nil {
		t.Fatal(err)
	}
	foreign, err := root.Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: keys[1].KeyID, Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	kms, ctx := a.kms(t, b.key), t.Context()
	encrypt := func(id string) func() error {
		return func() error {
			_, err := kms.Encrypt(ctx, kmsapi.EncryptRequest{KeyID: id, Plaintext: []byte("x")})
			return err
		}
	}
	for _, m := range []may{
		{"encrypt", encrypt(keys[0].KeyID), true},
		{"encrypt by alias", encrypt("alias/payments"), true},
		{"data key", func() error {
			_, err := kms.GenerateDataKey(ctx, kmsapi.DataKeyRequest{KeyID: keys[0].KeyID})
			return err
		}, true},
		{"describe", func() error { _, err := kms.DescribeKey(ctx, keys[0].KeyID); return err }, true},
		{"encrypt with another", encrypt(keys[1].KeyID), false},
		{"decrypt of another", func() error {
			_, err := kms.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: foreign.CiphertextBlob})
			return err
		}, false},
		{"disable", func() error { _, err := kms.DisableKey(ctx, keys[0].KeyID); return err }, false},
		{"create", func() error { _, err := kms.CreateKey(ctx, kmsapi.CreateKeyRequest{}); return err }, false},
		{"list", func() error { _, err := kms.ListKeys(ctx, kmsapi.Page{}); return err }, false},
		{"alias", func() error { _, err := kms.CreateAlias(ctx, keys[0].KeyID, "alias/x"); return err }, false},
	} {
		m.check(t)
	}
	if _, err := a.as(t, b.key).AccessKeys(ctx, "app"); !Denied(err) {
		t.Errorf("the user may look into RAM: %v", err)
	}
}

// TestManage: a broker may make CMKs, which it marks, and manage those, and can
// neither touch nor mark the CMKs of others.
func TestManage(t *testing.T) {
	a := newAccount(t)
	root, ctx := a.rootKMS(t), t.Context()
	foreign, err := root.CreateKey(ctx, kmsapi.CreateKeyRequest{
		Origin: kmsapi.OriginExternal, Tags: []kmsapi.Tag{{Key: "broker-instance-id", Value: "other"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.CreateAlias(ctx, foreign.KeyID, "alias/foreign"); err != nil {
		t.Fatal(err)
	}
	document, err := Grant{Manage: &Manage{Regions: []string{"cn-hangzhou"}, Instance: "mine", Aliases: []string{"alias/payments"}}}.Document()
	if err != nil {
		t.Fatal(err)
	}
	var b box
	if _, err := a.Provision(ctx, "broker", document, "", b.deliver); err != nil {
		t.Fatal(err)
	}
	kms := a.kms(t, b.key)
	made, err := kms.CreateKey(ctx, kmsapi.CreateKeyRequest{
		Origin: kmsapi.OriginExternal, Tags: []kmsapi.Tag{{Key: "broker-instance-id", Value: "mine"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	parameters := func(id string) func() error {
		return func() error {
			_, err := kms.GetParametersForImport(ctx, kmsapi.ImportParametersRequest{
				KeyID: id, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: kmsapi.WrappingRSA2048,
			})
			return err
		}
	}
	alias := func(id, name string) func() error {
		return func() error { _, err := kms.CreateAlias(ctx, id, name); return err }
	}
	for _, m := range []may{
		{"parameters", parameters(made.KeyID), true},
		{"describe", func() error { _, err := kms.DescribeKey(ctx, made.KeyID); return err }, true},
		{"list", func() error { _, err := kms.ListKeys(ctx, kmsapi.Page{}); return err }, true},
		{"aliases", func() error { _, err := kms.ListAliases(ctx, kmsapi.Page{}); return err }, true},
		{"find by tag", func() error {
			_, err := kms.ListTagResources(ctx, kmsapi.ListTagResourcesRequest{Tags: []kmsapi.Tag{{Key: "broker-instance-id", Value: "mine"}}})
			return err
		}, true},
		{"alias", alias(made.KeyID, "alias/payments"), true},
		{"another alias", alias(made.KeyID, "alias/other"), false},
		{"steal an alias", func() error { _, err := kms.UpdateAlias(ctx, made.KeyID, "alias/foreign"); return err }, false},
		{"parameters of another", parameters(foreign.KeyID), false},
		{"describe another", func() error { _, err := kms.DescribeKey(ctx, foreign.KeyID); return err }, false},
		{"disable another", func() error { _, err := kms.DisableKey(ctx, foreign.KeyID); return err }, false},
		{"delete", func() error { _, err := kms.ScheduleKeyDeletion(ctx, made.KeyID, 7); return err }, true},
	} {
		m.check(t)
	}
}

func FuzzDocument(f *testing.F) {
	f.Add("acs:kms:cn-hangzhou:1:key/a", "alias/a", "instance")
	f.Add("acs:kms:*:1:key/a", "alias/*", "*")
	f.Fuzz(func(t *testing.T, arn, alias, instance string) {
		text, err := Grant{
			Keys: []Key{{ARN: arn, Alias: alias}}, Manage: &Manage{Regions: []string{"cn-hangzhou"}, Instance: instance},
		}.Document()
		if err != nil {
			return
		}
		var d document
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		for _, s := range d.Statement {
			for _, r := range s.Resource {
				if strings.ContainsAny(r, "*?") && !strings.HasSuffix(r, ":key/*") {
					t.Errorf("%q is wider than asked for", r)
				}
			}
		}
	})
}
