package emulator_test

import (
	"testing"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/sts"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

const trustEverybody = `{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:root"]},"Action":"sts:AssumeRole"}]}`

func TestInactiveAccessKey(t *testing.T) {
	f := start(t, emulator.Config{})
	who := f.newUser("who", allowAll)
	f.as(who).ok("DescribeRegions", nil)
	f.service(ramVersion, "UpdateAccessKey", params{"UserName": "who", "UserAccessKeyId": who.id, "Status": "Inactive"})
	f.as(who).refused(403, "Forbidden.AccessKey", "DescribeRegions", nil)
	if a := f.as(who).tryService(ramVersion, "GetUser", nil); a.code() != "InvalidAccessKeyId.Inactive" {
		t.Errorf("RAM answered %v", a.body)
	}
	f.service(ramVersion, "DeleteAccessKey", params{"UserName": "who", "UserAccessKeyId": who.id})
	f.as(who).refused(404, "InvalidAccessKeyId.NotFound", "DescribeRegions", nil)
	f.as(caller{id: who.id, secret: who.secret, token: "t"}).refused(400, "InvalidSecurityToken.MismatchWithAccessKey", "DescribeRegions", nil)
}

// TestTemporaryCredentials assumes a role with one SDK and works with it through
// another, and through both signatures.
func TestTemporaryCredentials(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.newKey("Aliyun_KMS")
	f.service(ramVersion, "CreateRole", params{"RoleName": "app", "AssumeRolePolicyDocument": trustEverybody})
	f.service(ramVersion, "AttachPolicyToRole", params{"PolicyType": "System", "PolicyName": "AliyunKMSCryptoUserAccess", "RoleName": "app"})
	user := f.newUser("user", `{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}`)

	client, err := sts.NewClientWithAccessKey("cn-hangzhou", user.id, user.secret)
	if err != nil {
		t.Fatal(err)
	}
	client.Domain = f.host
	ask := sts.CreateAssumeRoleRequest()
	ask.RoleArn, ask.RoleSessionName, ask.DurationSeconds = "acs:ram::1000000000000001:role/app", "session", "900"
	given, err := client.AssumeRole(ask)
	if err != nil {
		t.Fatal(err)
	}
	session := caller{given.Credentials.AccessKeyId, given.Credentials.AccessKeySecret, given.Credentials.SecurityToken}
	if want := f.clock.Now().Add(15 * time.Minute).Format(timeLayout); given.Credentials.Expiration != want {
		t.Errorf("expires %s, want %s", given.Credentials.Expiration, want)
	}

	encrypt := func() error {
		client, err := kms.NewClientWithStsToken("cn-hangzhou", session.id, session.secret, session.token)
		if err != nil {
			t.Fatal(err)
		}
		client.Domain = f.host
		r := kms.CreateEncryptRequest()
		r.KeyId, r.Plaintext = id, "eA=="
		_, err = client.Encrypt(r)
		return err
	}
	if err := encrypt(); err != nil {
		t.Error(err)
	}
	f.as(session).ok("Encrypt", params{"KeyId": id, "Plaintext": "eA=="})
	f.as(session).refused(403, "Forbidden.NoPermission", "DisableKey", params{"KeyId": id})
	f.as(caller{id: session.id, secret: session.secret}).refused(400, "MissingSecurityToken", "DescribeRegions", nil)
	f.as(caller{id: session.id, secret: "wrong", token: session.token}).refused(400, "SignatureDoesNotMatch", "DescribeRegions", nil)
	f.as(caller{id: session.id, secret: session.secret, token: "!"}).refused(400, "InvalidSecurityToken.Malformed", "DescribeRegions", nil)

	f.clock.advance(15 * time.Minute)
	checkSDK(t, encrypt(), 400, "InvalidSecurityToken.Expired")
	f.as(session).refused(400, "InvalidSecurityToken.Expired", "DescribeRegions", nil)
}

// TestRegionsAreApart looks for a key of one region in another.
func TestRegionsAreApart(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.newKey("Aliyun_KMS")
	f.ok("CreateAlias", params{"KeyId": id, "AliasName": "alias/here"})
	blob := f.encrypt(id, "x")
	in := func(host, region, action string, p params) answer {
		r := f.request(action, p)
		if host != "" {
			r.Host = host
		}
		if region != "" {
			r.Header.Set("X-Acs-Region-Id", region)
		}
		f.sign(r, time.Now())
		return f.send(r)
	}
	for _, where := range []struct {
		host, region string
		here         bool
	}{
		{"", "", true},
		{"", "cn-hangzhou", true},
		{"kms.cn-hangzhou.aliyuncs.com", "cn-shanghai", true}, // the host decides
		{"", "cn-shanghai", false},
		{"kms.cn-shanghai.aliyuncs.com", "", false},
		{"kms-vpc.cn-shanghai.aliyuncs.com:443", "cn-hangzhou", false},
	} {
		arn := "acs:kms:cn-hangzhou:1000000000000001:key/" + id
		for action, p := range map[string]params{
			"DescribeKey": {"KeyId": id}, "EnableKey": {"KeyId": arn}, "Encrypt": {"KeyId": "alias/here", "Plaintext": "eA=="}, "Decrypt": {"CiphertextBlob": blob},
		} {
			if a := in(where.host, where.region, action, p); (a.status == 200) != where.here {
				t.Errorf("%s at %+v answered %d %v", action, where, a.status, a.body)
			}
		}
	}
	if a := in("kms.cn-beijing.aliyuncs.com", "", "ListKeys", nil); a.code() != "InvalidRegionId.NotFound" {
		t.Errorf("a region that is not there answered %v", a.body)
	}
	// RAM and STS are the same everywhere.
	f.service(ramVersion, "CreateUser", params{"UserName": "u", "RegionId": "cn-beijing"})
}
