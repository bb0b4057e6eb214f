package ram_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/ram"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

func TestUsers(t *testing.T) {
	f := newFixture(t)
	made := f.ok("CreateUser", params{"UserName": "kms.broker-1_a", "DisplayName": "Broker", "Comments": "for keys", "Email": "a@b.example", "MobilePhone": "86-1"})
	if made.text("User", "UserName") != "kms.broker-1_a" || len(made.text("User", "UserId")) != 18 || made.text("User", "CreateDate") != "2026-05-01T10:00:00Z" {
		t.Errorf("made %v", made)
	}
	f.refused("EntityAlreadyExists.User", "CreateUser", params{"UserName": "kms.broker-1_a"})
	f.refused("InvalidParameter.UserName.InvalidChars", "CreateUser", params{"UserName": "a b"})
	f.refused("InvalidParameter.UserName.Length", "CreateUser", params{"UserName": strings.Repeat("a", 65)})
	f.refused("InvalidParameter.Comments.Length", "CreateUser", params{"UserName": "b", "Comments": strings.Repeat("é", 129)})
	f.refused("MissingParameter", "CreateUser", nil)
	f.refused("EntityNotExist.User", "GetUser", params{"UserName": "nobody"})
	f.refused("EntityNotExist.User", "DeleteUser", params{"UserName": "nobody"})
	f.refused("InvalidAction.NotFound", "CreateGroup", params{"GroupName": "g"})

	f.now = f.now.Add(time.Hour)
	f.ok("UpdateUser", params{"UserName": "kms.broker-1_a", "NewUserName": "broker", "NewComments": "x"})
	got := f.ok("GetUser", params{"UserName": "broker"})
	if got.text("User", "UserId") != made.text("User", "UserId") || got.text("User", "Comments") != "x" || got.text("User", "UpdateDate") != "2026-05-01T11:00:00Z" || got.text("User", "Email") != "a@b.example" {
		t.Errorf("got %v", got)
	}
	for i := range 4 {
		f.ok("CreateUser", params{"UserName": fmt.Sprintf("u%d", i)})
	}
	var names []string
	page := params{"MaxItems": "2"}
	for {
		a := f.ok("ListUsers", page)
		for _, u := range a.list("Users", "User") {
			names = append(names, u.(map[string]any)["UserName"].(string))
		}
		if a.text("IsTruncated") == "false" {
			break
		}
		page["Marker"] = a.text("Marker")
	}
	if got := strings.Join(names, " "); got != "broker u0 u1 u2 u3" {
		t.Errorf("users %s", got)
	}
	f.ok("DeleteUser", params{"UserName": "broker"})
	f.refused("EntityNotExist.User", "GetUser", params{"UserName": "broker"})
}

func TestAccessKeys(t *testing.T) {
	f := newFixture(t)
	f.ok("CreateUser", params{"UserName": "u"})
	first := f.ok("CreateAccessKey", params{"UserName": "u"})
	id, secret := first.text("AccessKey", "AccessKeyId"), first.text("AccessKey", "AccessKeySecret")
	if first.text("AccessKey", "Status") != "Active" || len(secret) != 30 || len(id) != 24 {
		t.Errorf("made %v", first)
	}
	if got, err := f.account.Secret(id, ""); err != nil || got != secret {
		t.Errorf("secret %q, %v", got, err)
	}
	second := f.ok("CreateAccessKey", params{"UserName": "u"}).text("AccessKey", "AccessKeyId")
	f.refused("LimitExceeded.User.AccessKey", "CreateAccessKey", params{"UserName": "u"})
	f.refused("DeleteConflict.User.AccessKey", "DeleteUser", params{"UserName": "u"})
	f.refused("EntityNotExist.User", "CreateAccessKey", params{"UserName": "none"})
	f.refused("EntityNotExist.User.AccessKey", "DeleteAccessKey", params{"UserName": "u", "UserAccessKeyId": rootID})
	f.refused("MissingParameter", "DeleteAccessKey", params{"UserName": "u", "AccessKeyId": id})
	f.refused("InvalidParameter", "UpdateAccessKey", params{"UserName": "u", "UserAccessKeyId": id, "Status": "inactive"})

	if last := f.ok("GetAccessKeyLastUsed", params{"UserName": "u", "UserAccessKeyId": id}); last.text("AccessKeyLastUsed", "LastUsedDate") != "" {
		t.Errorf("used before use: %v", last)
	}
	if _, err := f.account.Identify(id, ""); err != nil {
		t.Fatal(err)
	}
	if last := f.ok("GetAccessKeyLastUsed", params{"UserName": "u", "UserAccessKeyId": id}); last.text("AccessKeyLastUsed", "LastUsedDate") != "2026-05-01T10:00:00Z" {
		t.Errorf("last use %v", last)
	}

	f.ok("UpdateAccessKey", params{"UserName": "u", "UserAccessKeyId": id, "Status": "Inactive"})
	if _, err := f.account.Secret(id, ""); !errors.Is(err, wire.ErrInactiveAccessKey) {
		t.Errorf("an inactive key: %v", err)
	}
	f.ok("UpdateAccessKey", params{"UserName": "u", "UserAccessKeyId": id, "Status": "Active"})
	f.ok("DeleteAccessKey", params{"UserName": "u", "UserAccessKeyId": id})
	if _, err := f.account.Secret(id, ""); !errors.Is(err, wire.ErrUnknownAccessKey) {
		t.Errorf("a deleted key: %v", err)
	}
	left := f.ok("ListAccessKeys", params{"UserName": "u"}).list("AccessKeys", "AccessKey")
	if len(left) != 1 || left[0].(map[string]any)["AccessKeyId"] != second || left[0].(map[string]any)["AccessKeySecret"] != nil {
		t.Errorf("left %v", left)
	}
}

func TestPolicies(t *testing.T) {
	f := newFixture(t)
	f.ok("CreateUser", params{"UserName": "u"})
	for code, p := range map[string]params{
		"MalformedPolicyDocument":                  {"PolicyName": "p", "PolicyDocument": "{}"},
		"InvalidParameter.PolicyDocument.Length":   {"PolicyName": "p", "PolicyDocument": strings.Repeat(" ", 6145)},
		"InvalidParameter.PolicyName.InvalidChars": {"PolicyName": "p.q", "PolicyDocument": document(allowAll)},
		"InvalidParameter.PolicyName.Length":       {"PolicyName": strings.Repeat("p", 129), "PolicyDocument": document(allowAll)},
	} {
		f.refused(code, "CreatePolicy", p)
	}
	f.ok("CreatePolicy", params{"PolicyName": "p", "PolicyDocument": document(allowAll), "Description": "d"})
	f.refused("EntityAlreadyExists.Policy", "CreatePolicy", params{"PolicyName": "p", "PolicyDocument": document(allowAll)})

	attach := params{"PolicyType": "Custom", "PolicyName": "p", "UserName": "u"}
	f.ok("AttachPolicyToUser", attach)
	f.refused("EntityAlreadyExists.User.Policy", "AttachPolicyToUser", attach)
	f.refused("EntityNotExist.Policy", "AttachPolicyToUser", params{"PolicyType": "System", "PolicyName": "p", "UserName": "u"})
	f.refused("InvalidParameter.PolicyType", "AttachPolicyToUser", params{"PolicyType": "custom", "PolicyName": "p", "UserName": "u"})
	f.refused("DeleteConflict.User.Policy", "DeleteUser", params{"UserName": "u"})
	f.refused("DeleteConflict.Policy.User", "DeletePolicy", params{"PolicyName": "p"})
	f.ok("AttachPolicyToUser", params{"PolicyType": "System", "PolicyName": "AliyunKMSFullAccess", "UserName": "u"})
	if list := f.ok("ListPoliciesForUser", params{"UserName": "u"}).list("Policies", "Policy"); len(list) != 2 || list[0].(map[string]any)["AttachDate"] != "2026-05-01T10:00:00Z" {
		t.Errorf("attached %v", list)
	}
	got := f.ok("GetPolicy", params{"PolicyName": "p", "PolicyType": "Custom"})
	if got.text("Policy", "AttachmentCount") != "1" || got.text("Policy", "DefaultVersion") != "v1" || got.text("DefaultPolicyVersion", "PolicyDocument") != document(allowAll) {
		t.Errorf("got %v", got)
	}

	for range 4 {
		f.ok("CreatePolicyVersion", params{"PolicyName": "p", "PolicyDocument": document(allowAll)})
	}
	another := params{"PolicyName": "p", "PolicyDocument": document(allowAll), "SetAsDefault": "true"}
	f.refused("LimitExceeded.Policy.Version", "CreatePolicyVersion", another)
	f.refused("DeleteConflict.Policy.Version.Default", "DeletePolicyVersion", params{"PolicyName": "p", "VersionId": "v1"})
	f.ok("DeletePolicyVersion", params{"PolicyName": "p", "VersionId": "v2"})
	f.refused("EntityNotExist.Policy.Version", "DeletePolicyVersion", params{"PolicyName": "p", "VersionId": "v2"})
	if v := f.ok("CreatePolicyVersion", another).text("PolicyVersion", "VersionId"); v != "v6" {
		t.Errorf("version %s", v)
	}
	another["RotateStrategy"] = "DeleteOldestNonDefaultVersionWhenLimitExceeded"
	f.ok("CreatePolicyVersion", another)
	var ids []string
	for _, v := range f.ok("ListPolicyVersions", params{"PolicyName": "p", "PolicyType": "Custom"}).list("PolicyVersions", "PolicyVersion") {
		ids = append(ids, v.(map[string]any)["VersionId"].(string))
	}
	if got := strings.Join(ids, " "); got != "v3 v4 v5 v6 v7" {
		t.Errorf("versions %s", got)
	}
	f.ok("SetDefaultPolicyVersion", params{"PolicyName": "p", "VersionId": "v3"})
	if v := f.ok("GetPolicyVersion", params{"PolicyName": "p", "PolicyType": "Custom", "VersionId": "v3"}); v.text("PolicyVersion", "IsDefaultVersion") != "true" {
		t.Errorf("version %v", v)
	}

	f.ok("DetachPolicyFromUser", attach)
	f.refused("EntityNotExist.User.Policy", "DetachPolicyFromUser", attach)
	f.refused("DeleteConflict.Policy.Version", "DeletePolicy", params{"PolicyName": "p"})
	f.ok("AttachPolicyToUser", attach)
	f.ok("DeletePolicy", params{"PolicyName": "p", "CascadingDelete": "true"})
	f.refused("EntityNotExist.Policy", "GetPolicy", params{"PolicyName": "p", "PolicyType": "Custom"})
	if list := f.ok("ListPoliciesForUser", params{"UserName": "u"}).list("Policies", "Policy"); len(list) != 1 {
		t.Errorf("attached %v", list)
	}
	if n := len(f.ok("ListPolicies", params{"PolicyType": "System"}).list("Policies", "Policy")); n == 0 {
		t.Error("no system policies")
	}
}

func TestAttachmentLimit(t *testing.T) {
	f := newFixture(t)
	f.ok("CreateUser", params{"UserName": "u"})
	for i := range 10 {
		f.policy("u", fmt.Sprintf("p%d", i), allowAll)
	}
	f.ok("CreatePolicy", params{"PolicyName": "p10", "PolicyDocument": document(allowAll)})
	f.refused("LimitExceeded.User.Policy", "AttachPolicyToUser", params{"PolicyType": "Custom", "PolicyName": "p10", "UserName": "u"})
	f.ok("AttachPolicyToUser", params{"PolicyType": "System", "PolicyName": "AdministratorAccess", "UserName": "u"})
}

func TestRestartKeepsAll(t *testing.T) {
	f := newFixture(t)
	who := f.user("u")
	f.policy("u", "p", `{"Effect":"Allow","Action":"ram:GetUser","Resource":"*"}`)
	f.restart()
	if _, code := f.try(who, ram.APIVersion, "GetUser", params{"UserName": "u"}); code != "" {
		t.Errorf("answered %s", code)
	}
	if list := f.ok("ListPoliciesForUser", params{"UserName": "u"}).list("Policies", "Policy"); len(list) != 1 {
		t.Errorf("attached %v", list)
	}
	for _, damaged := range []string{"", "{", "{}", strings.Replace(string(f.saved), `"Default":"v1"`, `"Default":"v9"`, 1)} {
		if _, err := ram.New(ram.Config{ID: accountID, State: []byte(damaged), Now: time.Now}); err == nil {
			t.Errorf("takes the record %q", damaged)
		}
	}
}

// TestFailedSaveChangesNothing keeps what is seen and what is saved the same.
func TestFailedSaveChangesNothing(t *testing.T) {
	full := errors.New("disk full")
	saves := 0
	account, err := ram.New(ram.Config{ID: accountID, RootID: rootID, RootSecret: rootSecret, Now: time.Now, Save: func([]byte) error {
		if saves++; saves > 1 {
			return full
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	who, err := account.Identify(rootID, "")
	if err != nil {
		t.Fatal(err)
	}
	request := func(action string) *wire.Request {
		return &wire.Request{Action: action, Version: ram.APIVersion, Params: map[string]string{"UserName": "u"}}
	}
	if _, err := account.Serve(request("CreateUser"), who); !errors.Is(err, full) {
		t.Fatalf("got %v", err)
	}
	var refusal *wire.Error
	if _, err := account.Serve(request("GetUser"), who); !errors.As(err, &refusal) || refusal.Code != "EntityNotExist.User" {
		t.Errorf("the user is there all the same: %v", err)
	}
}

// TestRAMPermissions lets users administer no more than they may.
func TestRAMPermissions(t *testing.T) {
	f := newFixture(t)
	self := f.user("self")
	f.policy("self", "own-keys", `{"Effect":"Allow","Action":"ram:*AccessKey*","Resource":"acs:ram:*:`+accountID+`:user/self"}`)
	f.ok("CreateUser", params{"UserName": "other"})
	for _, tt := range []struct {
		action string
		p      params
		code   string
	}{
		{"ListAccessKeys", nil, ""}, // of the caller
		{"ListAccessKeys", params{"UserName": "self"}, ""},
		{"CreateAccessKey", nil, ""},
		{"CreateAccessKey", params{"UserName": "other"}, "NoPermission"},
		{"ListAccessKeys", params{"UserName": "nobody"}, "NoPermission"},
		{"GetUser", nil, "NoPermission"},
		{"ListUsers", nil, "NoPermission"},
		{"CreateUser", params{"UserName": "third"}, "NoPermission"},
		{"AttachPolicyToUser", params{"PolicyType": "System", "PolicyName": "AdministratorAccess", "UserName": "self"}, "NoPermission"},
	} {
		if _, code := f.try(self, ram.APIVersion, tt.action, tt.p); code != tt.code {
			t.Errorf("%s %v answered %q, want %q", tt.action, tt.p, code, tt.code)
		}
	}
	f.refused("MissingParameter", "ListAccessKeys", nil) // the root is no user
}

func TestNobodyMayDoNothing(t *testing.T) {
	if v := (ram.Identity{}).Evaluate(policy.Request{Action: "kms:DescribeKey", Resource: "*"}); v != policy.Silent {
		t.Errorf("verdict %d", v)
	}
}
