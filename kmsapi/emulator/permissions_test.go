package emulator_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

const allowAll = `{"Effect":"Allow","Action":"kms:*","Resource":"*"}`

// TestEveryActionNeedsPermission calls every action as somebody who may do
// nothing, and as somebody who may do only that.
func TestEveryActionNeedsPermission(t *testing.T) {
	f := start(t, emulator.Config{})
	nobody := f.newUser("nobody", `{"Effect":"Allow","Action":"oss:*","Resource":"*"}`)
	for _, action := range emulator.Actions() {
		t.Run(action, func(t *testing.T) {
			f := &fixture{t: t, server: f.server, host: f.host, clock: f.clock, who: rootCaller}
			s := newSubject(f, action, "Enabled")
			p := s.arguments(f, action)
			a := f.as(nobody).call(action, p)
			if action == "DescribeRegions" { // documented: not checked
				if a.status != http.StatusOK {
					t.Errorf("answered %d %v", a.status, a.body)
				}
				return
			}
			if a.status != http.StatusForbidden || a.code() != "Forbidden.NoPermission" {
				t.Fatalf("nobody was answered %d %v", a.status, a.body)
			}
			permissions := `"kms:` + action + `"`
			if action == "ReEncrypt" {
				permissions = `"kms:ReEncryptFrom","kms:ReEncryptTo"`
			}
			only := f.newUser("only-"+action, `{"Effect":"Allow","Action":[`+permissions+`],"Resource":"*"}`)
			if a := f.as(only).call(action, p); a.code() != strings.TrimSpace(matrix[action][0]) {
				t.Errorf("who may do only this was answered %d %v", a.status, a.body)
			}
		})
	}
}

// TestLeastPrivilege is the policy of the documentation's "Use RAM to control
// access to KMS resources": one key, by any name.
func TestLeastPrivilege(t *testing.T) {
	f := start(t, emulator.Config{})
	id, other := f.newKey("Aliyun_KMS"), f.newKey("Aliyun_KMS")
	f.ok("CreateAlias", params{"KeyId": id, "AliasName": "alias/mine"})
	arn := "acs:kms:cn-hangzhou:1000000000000001:key/" + id
	app := f.as(f.newUser("app", `{"Effect":"Allow","Action":["kms:Encrypt","kms:Decrypt","kms:GenerateDataKey","kms:DescribeKey"],"Resource":["`+arn+`"]}`))

	for _, name := range []string{id, arn, "alias/mine"} {
		app.ok("Encrypt", params{"KeyId": name, "Plaintext": "eA=="})
	}
	app.ok("Decrypt", params{"CiphertextBlob": f.encrypt(id, "x")})
	a := app.refused(403, "Forbidden.NoPermission", "Decrypt", params{"CiphertextBlob": f.encrypt(other, "x")})
	if want := "This operation for acs:kms:cn-hangzhou:1000000000000001:key/" + other + " is forbidden by permission system."; a.text("Message") != want {
		t.Errorf("message %q, want %q", a.text("Message"), want)
	}
	app.refused(403, "Forbidden.NoPermission", "Encrypt", params{"KeyId": other, "Plaintext": "eA=="})
	app.refused(403, "Forbidden.NoPermission", "GenerateDataKeyWithoutPlaintext", params{"KeyId": id})
	app.refused(403, "Forbidden.NoPermission", "ScheduleKeyDeletion", params{"KeyId": id, "PendingWindowInDays": "7"})
	app.refused(403, "Forbidden.NoPermission", "ListKeys", nil)
	app.refused(403, "Forbidden.NoPermission", "CreateKey", nil)
	app.refused(403, "Forbidden.NoPermission", "ReEncrypt", params{"CiphertextBlob": f.encrypt(id, "x"), "DestinationKeyId": id})
	// Permission comes before the state of the key.
	f.ok("DisableKey", params{"KeyId": other})
	app.refused(403, "Forbidden.NoPermission", "Encrypt", params{"KeyId": other, "Plaintext": "eA=="})
	// A policy that is taken away counts no more.
	f.service(ramVersion, "DetachPolicyFromUser", params{"PolicyType": "Custom", "PolicyName": "of-app", "UserName": "app"})
	app.refused(403, "Forbidden.NoPermission", "Encrypt", params{"KeyId": id, "Plaintext": "eA=="})
}

func TestPermissionsOfTwoResources(t *testing.T) {
	f := start(t, emulator.Config{})
	id, other := f.newKey("Aliyun_KMS"), f.newKey("Aliyun_KMS")
	key := func(id string) string { return `"acs:kms:*:*:key/` + id + `"` }
	aliases := f.as(f.newUser("aliases", `{"Effect":"Allow","Action":"kms:*Alias","Resource":["acs:kms:*:*:alias/mine/*",`+key(id)+`]}`))
	aliases.ok("CreateAlias", params{"KeyId": id, "AliasName": "alias/mine/a"})
	aliases.refused(403, "Forbidden.NoPermission", "CreateAlias", params{"KeyId": id, "AliasName": "alias/yours"})
	aliases.refused(403, "Forbidden.NoPermission", "CreateAlias", params{"KeyId": other, "AliasName": "alias/mine/b"})
	aliases.refused(403, "Forbidden.NoPermission", "UpdateAlias", params{"KeyId": other, "AliasName": "alias/mine/a"})
	f.ok("CreateAlias", params{"KeyId": other, "AliasName": "alias/mine/c"})
	aliases.refused(403, "Forbidden.NoPermission", "DeleteAlias", params{"AliasName": "alias/mine/c"})
	aliases.ok("DeleteAlias", params{"AliasName": "alias/mine/a"})

	from := f.as(f.newUser("from", `{"Effect":"Allow","Action":"kms:ReEncryptFrom","Resource":`+key(id)+`},{"Effect":"Allow","Action":"kms:ReEncryptTo","Resource":`+key(other)+`}`))
	from.ok("ReEncrypt", params{"CiphertextBlob": f.encrypt(id, "x"), "DestinationKeyId": other})
	from.refused(403, "Forbidden.NoPermission", "ReEncrypt", params{"CiphertextBlob": f.encrypt(other, "x"), "DestinationKeyId": id})

	tags := f.as(f.newUser("tags", `{"Effect":"Allow","Action":["kms:ListTagResources","kms:TagResources"],"Resource":`+key(id)+`}`))
	list := params{"RegionId": "cn-hangzhou", "ResourceType": "key", "ResourceId.1": id}
	tags.ok("ListTagResources", list)
	both := params{"RegionId": "cn-hangzhou", "ResourceType": "key", "ResourceId.1": id, "ResourceId.2": other, "Tag.1.Key": "a"}
	tags.refused(403, "Forbidden.NoPermission", "ListTagResources", both)
	tags.refused(403, "Forbidden.NoPermission", "TagResources", both)
	tags.refused(403, "Forbidden.NoPermission", "ListTagResources", params{"RegionId": "cn-hangzhou", "ResourceType": "key"})
	if rows := f.ok("ListTagResources", list).list("TagResources", "TagResource"); len(rows) > 0 {
		t.Errorf("TagResources changed one of two keys: %v", rows)
	}
}

func TestConditions(t *testing.T) {
	f := start(t, emulator.Config{})
	prod, test := f.newKey("Aliyun_KMS"), f.newKey("Aliyun_KMS")
	f.ok("TagResource", params{"KeyId": prod, "Tags": `[{"TagKey":"env","TagValue":"prod"}]`})
	f.ok("TagResource", params{"KeyId": test, "Tags": `[{"TagKey":"env","TagValue":"test"}]`})
	may := func(name, condition, id string) bool {
		who := f.newUser(name, `{"Effect":"Allow","Action":"kms:*","Resource":"*","Condition":{`+condition+`}}`)
		return f.as(who).call("DescribeKey", params{"KeyId": id}).status == http.StatusOK
	}
	noon := f.clock.Now().Add(time.Hour).Format(time.RFC3339)
	for i, tt := range []struct {
		condition string
		id        string
		want      bool
	}{
		{`"StringEquals":{"kms:tag/env":"prod"}`, prod, true},
		{`"StringEquals":{"kms:tag/env":"prod"}`, test, false},
		{`"IpAddress":{"acs:SourceIp":"127.0.0.0/8"}`, prod, true},
		{`"IpAddress":{"acs:SourceIp":"192.0.2.0/24"}`, prod, false},
		{`"Bool":{"acs:SecureTransport":"true"}`, prod, false},
		{`"DateLessThan":{"acs:CurrentTime":"` + noon + `"}`, prod, true},
		{`"StringEquals":{"acs:SourceVpc":"vpc-1"}`, prod, false},
		{`"StringNotEquals":{"acs:Unheard":"x"}`, prod, false},
	} {
		if got := may(fmt.Sprintf("user%d", i), tt.condition, tt.id); got != tt.want {
			t.Errorf("%s permits: %t, want %t", tt.condition, got, tt.want)
		}
	}
}

// TestKeyPolicy is the documentation's "Overview of key policies": either policy
// is enough to permit, either to refuse.
func TestKeyPolicy(t *testing.T) {
	f := start(t, emulator.Config{})
	statement := func(effect, user, action string) string {
		return `{"Effect":"` + effect + `","Principal":{"RAM":["acs:ram::1000000000000001:user/` + user + `"]},"Action":["` + action + `"],"Resource":["*"]}`
	}
	document := `{"Version":"1","Statement":[` + statement("Allow", "guest", "kms:Encrypt") + "," + statement("Deny", "admin", "kms:Decrypt") + `]}`
	id := f.ok("CreateKey", params{"Policy": document}).text("KeyMetadata", "KeyId")
	if got := f.ok("GetKeyPolicy", params{"KeyId": id, "PolicyName": "default"}).text("Policy"); got != document {
		t.Errorf("policy %s", got)
	}
	blob := f.encrypt(id, "x")
	guest := f.as(f.newUser("guest", `{"Effect":"Deny","Action":"kms:DescribeKey","Resource":"*"}`))
	admin := f.as(f.newUser("admin", allowAll))
	guest.ok("Encrypt", params{"KeyId": id, "Plaintext": "eA=="})
	guest.refused(403, "Forbidden.NoPermission", "Decrypt", params{"CiphertextBlob": blob})
	admin.ok("DescribeKey", params{"KeyId": id})
	admin.refused(403, "Forbidden.NoPermission", "Decrypt", params{"CiphertextBlob": blob})
	f.ok("Decrypt", params{"CiphertextBlob": blob})

	f.ok("SetKeyPolicy", params{"KeyId": id, "Policy": `{"Version":"1","Statement":[` + statement("Allow", "guest", "kms:*") + `]}`})
	admin.ok("Decrypt", params{"CiphertextBlob": blob})
	guest.ok("Decrypt", params{"CiphertextBlob": blob})
	guest.refused(403, "Forbidden.NoPermission", "DescribeKey", params{"KeyId": id})

	plain := f.newKey("Aliyun_KMS")
	if got := f.ok("GetKeyPolicy", params{"KeyId": plain}).text("Policy"); !strings.Contains(got, `"acs:ram::1000000000000001:*"`) {
		t.Errorf("default policy %s", got)
	}
	guest.refused(403, "Forbidden.NoPermission", "Encrypt", params{"KeyId": plain, "Plaintext": "eA=="})
	for _, bad := range []string{"{", `{"Version":"1","Statement":[` + allowAll + `]}`, document[:1] + strings.Repeat(" ", 32768) + document[1:]} {
		f.refused(400, "InvalidParameter", "SetKeyPolicy", params{"KeyId": id, "Policy": bad})
		f.refused(400, "InvalidParameter", "CreateKey", params{"Policy": bad})
	}
	f.refused(400, "InvalidParameter", "GetKeyPolicy", params{"KeyId": id, "PolicyName": "other"})
}

func TestKeyPolicySurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	document := `{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:user/guest"]},"Action":["kms:*"],"Resource":["*"]}]}`
	var id string
	var guest caller
	t.Run("before", func(t *testing.T) {
		f := start(t, emulator.Config{StateDir: dir})
		id = f.ok("CreateKey", params{"Policy": document}).text("KeyMetadata", "KeyId")
		guest = f.newUser("guest", `{"Effect":"Allow","Action":"oss:*","Resource":"*"}`)
	})
	t.Run("after", func(t *testing.T) {
		f := start(t, emulator.Config{StateDir: dir})
		f.as(guest).ok("Encrypt", params{"KeyId": id, "Plaintext": "eA=="})
	})
}

// TestAbsentActions holds the two tables against the SDK: every action that the
// service has is emulated or refused as unsupported, and nothing else.
func TestAbsentActions(t *testing.T) {
	f := start(t, emulator.Config{})
	all := append(emulator.Actions(), emulator.Absent()...)
	for method := range reflect.TypeFor[*kms.Client]().Methods() {
		if method.Type.NumIn() != 2 || !strings.HasSuffix(method.Type.In(1).String(), "kms."+method.Name+"Request") {
			continue
		}
		if !slices.Contains(all, method.Name) {
			t.Errorf("%s is in no table", method.Name)
		}
	}
	for _, action := range emulator.Absent() {
		if slices.Contains(emulator.Actions(), action) {
			t.Errorf("%s is in both tables", action)
		}
		f.refused(400, "UnsupportedOperation", action, nil)
	}
	f.refused(404, "InvalidAction.NotFound", "MakeCoffee", nil)
	f.refused(404, "InvalidAction.NotFound", "CreateUser", nil) // of RAM
}
