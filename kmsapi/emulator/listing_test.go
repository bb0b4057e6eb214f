package emulator_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

func TestListKeysThroughSDK(t *testing.T) {
	f := start(t, emulator.Config{})
	client := f.client("cn-hangzhou")
	var made []string
	for range 12 {
		made = append(made, f.newKey("Aliyun_KMS"))
		f.clock.advance(time.Millisecond)
	}
	list := func(page, size string) *kms.ListKeysResponse {
		t.Helper()
		r := kms.CreateListKeysRequest()
		r.PageNumber, r.PageSize = requests.Integer(page), requests.Integer(size)
		answer, err := client.ListKeys(r)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	for _, tt := range []struct {
		page, size string
		want       []string
	}{{"", "", made[:10]}, {"2", "", made[10:]}, {"3", "5", made[10:]}, {"3", "10", nil}, {"2147483647", "100", nil}, {"1", "100", made}} {
		answer := list(tt.page, tt.size)
		var got []string
		for _, k := range answer.Keys.Key {
			got = append(got, k.KeyId)
			if want := "acs:kms:cn-hangzhou:1000000000000001:key/" + k.KeyId; k.KeyArn != want {
				t.Errorf("KeyArn = %s, want %s", k.KeyArn, want)
			}
		}
		if !slices.Equal(got, tt.want) || answer.TotalCount != 12 {
			t.Errorf("page %s of %s is %v of %d, want %v of 12", tt.page, tt.size, got, answer.TotalCount, tt.want)
		}
	}
	for _, p := range []params{{"PageNumber": "0"}, {"PageSize": "0"}, {"PageSize": "101"}, {"PageNumber": "x"}} {
		f.refused(400, "InvalidParameter", "ListKeys", p)
	}
	if empty := f.ok("ListKeys", params{"PageNumber": "9"}); empty.list("Keys", "Key") == nil {
		t.Error("an empty page is no JSON array")
	}
}

func TestListKeysFilters(t *testing.T) {
	f := start(t, emulator.Config{})
	own, external := f.newKey("Aliyun_KMS"), f.newKey("EXTERNAL")
	hsm := f.ok("CreateKey", params{"ProtectionLevel": "HSM"}).text("KeyMetadata", "KeyId")
	f.ok("DisableKey", params{"KeyId": own})
	for filter, want := range map[string][]string{
		`[]`: {own, external, hsm},
		`[{"Key":"KeyState","Values":["Disabled"]}]`:                                                    {own},
		`[{"Key":"KeyState","Values":["Disabled","PendingImport"]}]`:                                    {own, external},
		`[{"Key":"KeyState","Values":["Enabled"]},{"Key":"ProtectionLevel","Values":["HSM"]}]`:          {hsm},
		`[{"Key":"KeyState","Values":["Disabled"]},{"Key":"ProtectionLevel","Values":["HSM"]}]`:         {},
		`[{"Key":"CreatorType","Values":["User"]},{"Key":"KeySpec","Values":["Aliyun_AES_256"]}]`:       {own, external, hsm},
		`[{"Key":"CreatorType","Values":["Service"]}]`:                                                  {},
		`[{"Key":"DKMSInstanceId","Values":["kst-1"]}]`:                                                 {},
		`[{"Key":"KeyUsage","Values":["ENCRYPT/DECRYPT"]},{"Key":"ProtectionLevel","Values":["HSM"]}]`:  {hsm},
		`[{"Key":"KeyUsage","Values":["SIGN/VERIFY"]},{"Key":"ProtectionLevel","Values":["SOFTWARE"]}]`: {},
	} {
		got := []string{}
		for _, entry := range f.ok("ListKeys", params{"Filters": filter}).list("Keys", "Key") {
			got = append(got, entry.(map[string]any)["KeyId"].(string))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s found %v, want %v", filter, got, want)
		}
	}
	many := strings.TrimSuffix(strings.Repeat(`"v",`, 11), ",")
	for _, filter := range []string{`{}`, `[{"Key":"Color","Values":["red"]}]`, `[{"Key":"KeyState","Values":[]}]`, `[{"Key":"KeyState","Values":[` + many + `]}]`} {
		f.refused(400, "InvalidParameter", "ListKeys", params{"Filters": filter})
	}
}

func TestCreateKeyParameters(t *testing.T) {
	f := start(t, emulator.Config{})
	long := strings.Repeat("é", 8193)
	for _, p := range []params{
		{"Origin": "external"}, {"KeySpec": "RSA_2048"}, {"KeyUsage": "SIGN/VERIFY"}, {"ProtectionLevel": "Software"},
		{"Description": long}, {"Tags": "{}"}, {"EnableAutomaticRotation": "perhaps"},
	} {
		f.refused(400, "InvalidParameter", "CreateKey", p)
	}
	f.refused(400, "MissingParameter", "CreateKey", params{"EnableAutomaticRotation": "true"})
	f.refused(403, "Forbidden.DKMSInstanceNotFound", "CreateKey", params{"DKMSInstanceId": "kst-1"})
	a := f.ok("CreateKey", params{"Description": long[:2*8192], "EnableAutomaticRotation": "false"})
	meta := a.body["KeyMetadata"].(map[string]any)
	for name, value := range maps.All(meta) {
		if _, ok := value.(string); !ok {
			t.Errorf("%s is %T, want a string", name, value)
		}
	}
	for name, want := range map[string]string{
		"KeyState": "Enabled", "KeyUsage": "ENCRYPT/DECRYPT", "Origin": "Aliyun_KMS", "ProtectionLevel": "SOFTWARE", "AutomaticRotation": "Disabled",
		"DeleteDate": "", "MaterialExpireTime": "", "CreationDate": f.clock.Now().Format(timeLayout), "Creator": "1000000000000001",
	} {
		if meta[name] != want {
			t.Errorf("%s = %q, want %q", name, meta[name], want)
		}
	}
	id := meta["KeyId"].(string)
	f.refused(400, "MissingParameter", "UpdateKeyDescription", params{"KeyId": id})
	f.refused(400, "InvalidParameter", "UpdateKeyDescription", params{"KeyId": id, "Description": long})
	f.ok("UpdateKeyDescription", params{"KeyId": id, "Description": ""})
	if got := f.ok("DescribeKey", params{"KeyId": id}).text("KeyMetadata", "Description"); got != "" {
		t.Errorf("Description = %q", got)
	}
}

func TestAliases(t *testing.T) {
	f := start(t, emulator.Config{})
	client := f.client("cn-hangzhou")
	first, second := f.newKey("Aliyun_KMS"), f.newKey("Aliyun_KMS")
	create := kms.CreateCreateAliasRequest()
	create.KeyId, create.AliasName = first, "alias/pay/ments_1-x"
	if _, err := client.CreateAlias(create); err != nil {
		t.Fatal(err)
	}
	_, err := client.CreateAlias(create)
	checkSDK(t, err, 400, "AliasAlreadyExists")
	f.ok("CreateAlias", params{"KeyId": first, "AliasName": "alias/b"})
	f.ok("UpdateAlias", params{"KeyId": second, "AliasName": "alias/b"})

	all, err := client.ListAliases(kms.CreateListAliasesRequest())
	if err != nil {
		t.Fatal(err)
	}
	if got := all.Aliases.Alias; len(got) != 2 || all.TotalCount != 2 || got[0].AliasName != "alias/b" || got[0].KeyId != second ||
		got[0].AliasArn != "acs:kms:cn-hangzhou:1000000000000001:alias/b" {
		t.Errorf("ListAliases answered %+v", all)
	}
	of := f.ok("ListAliasesByKeyId", params{"KeyId": first}).list("Aliases", "Alias")
	if len(of) != 1 || of[0].(map[string]any)["AliasName"] != "alias/pay/ments_1-x" {
		t.Errorf("ListAliasesByKeyId answered %v", of)
	}
	if got := f.ok("DescribeKey", params{"KeyId": "acs:kms:cn-hangzhou:1000000000000001:alias/b"}).text("KeyMetadata", "KeyId"); got != second {
		t.Errorf("the ARN of the alias names %s", got)
	}
	for _, name := range []string{"payments", "alias/", "alias/acs/oss", "alias/ä", "alias/" + strings.Repeat("a", 256)} {
		f.refused(400, "InvalidParameter", "CreateAlias", params{"KeyId": first, "AliasName": name})
	}
	f.refused(400, "Unsupported.Alias", "CreateAlias", params{"KeyId": "alias/b", "AliasName": "alias/c"})
	f.refused(400, "Unsupported.Alias", "EnableKey", params{"KeyId": "alias/b"})
	f.refused(404, "Forbidden.AliasNotFound", "UpdateAlias", params{"KeyId": first, "AliasName": "alias/none"})
	f.ok("DeleteAlias", params{"AliasName": "alias/b"})
	f.refused(404, "Forbidden.AliasNotFound", "DeleteAlias", params{"AliasName": "alias/b"})
	// Only the key that an alias comes to name counts, not the one it named.
	f.ok("ScheduleKeyDeletion", params{"KeyId": first, "PendingWindowInDays": "7"})
	f.ok("UpdateAlias", params{"KeyId": second, "AliasName": "alias/pay/ments_1-x"})
}

func TestVersions(t *testing.T) {
	f := start(t, emulator.Config{})
	id, waiting := f.newKey("Aliyun_KMS"), f.newKey("EXTERNAL")
	list := f.ok("ListKeyVersions", params{"KeyId": id}).list("KeyVersions", "KeyVersion")
	if len(list) != 1 {
		t.Fatalf("got %v", list)
	}
	version := list[0].(map[string]any)["KeyVersionId"].(string)
	if got := f.ok("DescribeKeyVersion", params{"KeyId": id, "KeyVersionId": version}).text("KeyVersion", "CreationDate"); got != f.clock.Now().Format(timeLayout) {
		t.Errorf("CreationDate = %q", got)
	}
	f.refused(404, "Forbidden.KeyVersionNotFound", "DescribeKeyVersion", params{"KeyId": waiting, "KeyVersionId": version})
	if n := len(f.ok("ListKeyVersions", params{"KeyId": waiting}).list("KeyVersions", "KeyVersion")); n != 0 {
		t.Errorf("a key that was never imported has %d versions", n)
	}
}

func TestTags(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.ok("CreateKey", params{"Tags": `[{"TagKey":"team","TagValue":"pay"},{"TagKey":"id","TagValue":"7"}]`}).text("KeyMetadata", "KeyId")
	f.ok("TagResource", params{"KeyId": id, "Tags": `[{"TagKey":"id","TagValue":"8"},{"TagKey":"empty","TagValue":""}]`})
	f.ok("UntagResource", params{"KeyId": id, "TagKeys": `["team","none"]`})
	tags := f.ok("ListResourceTags", params{"KeyId": id}).list("Tags", "Tag")
	if got, want := fmt.Sprint(tags), fmt.Sprintf("[map[KeyId:%[1]s TagKey:id TagValue:8] map[KeyId:%[1]s TagKey:empty TagValue:]]", id); got != want {
		t.Errorf("tags %s, want %s", got, want)
	}
	for _, bad := range []string{"{}", `[{"TagKey":""}]`, `[{"TagKey":"aliyun-x"}]`, `[{"TagKey":"acs:x"}]`, `[{"TagKey":"a"},{"TagKey":"a"}]`, `[{"TagKey":"` + strings.Repeat("k", 129) + `"}]`} {
		f.refused(400, "InvalidParameter", "TagResource", params{"KeyId": id, "Tags": bad})
	}
	f.refused(400, "InvalidParameter", "UntagResource", params{"KeyId": id, "TagKeys": "id"})
	f.refused(400, "MissingParameter", "TagResource", params{"Tags": "[]"})
	f.refused(400, "UnsupportedOperation", "TagResource", params{"SecretName": "s", "Tags": "[]"})
	f.refused(400, "Rejected.LimitExceeded", "TagResource", params{"KeyId": id, "Tags": numberedTags(t, 20)})
	f.ok("TagResource", params{"KeyId": id, "Tags": numberedTags(t, 18)})
}

func numberedTags(t *testing.T, n int) string {
	t.Helper()
	var tags []map[string]string
	for i := range n {
		tags = append(tags, map[string]string{"TagKey": fmt.Sprintf("t%02d", i), "TagValue": "v"})
	}
	text, err := json.Marshal(tags)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestListTagResourcesThroughSDK(t *testing.T) {
	f := start(t, emulator.Config{})
	client := f.client("cn-hangzhou")
	one := f.ok("CreateKey", params{"Tags": `[{"TagKey":"broker","TagValue":"b1"},{"TagKey":"import","TagValue":"1"}]`}).text("KeyMetadata", "KeyId")
	two := f.ok("CreateKey", params{"Tags": `[{"TagKey":"broker","TagValue":"b1"},{"TagKey":"import","TagValue":"2"}]`}).text("KeyMetadata", "KeyId")
	find := func(tags ...kms.ListTagResourcesTag) []string {
		t.Helper()
		r := kms.CreateListTagResourcesRequest()
		r.ResourceType, r.Tag = "key", &tags
		answer, err := client.ListTagResources(r)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, row := range answer.TagResources.TagResource {
			ids = append(ids, row.ResourceId)
		}
		slices.Sort(ids)
		return slices.Compact(ids)
	}
	both := []string{one, two}
	slices.Sort(both)
	for _, tt := range []struct {
		tags []kms.ListTagResourcesTag
		want []string
	}{
		{[]kms.ListTagResourcesTag{{Key: "broker", Value: "b1"}, {Key: "import", Value: "2"}}, []string{two}},
		{[]kms.ListTagResourcesTag{{Key: "broker", Value: "b1"}}, both},
		{[]kms.ListTagResourcesTag{{Key: "import"}}, both},
		{[]kms.ListTagResourcesTag{{Key: "import", Value: "3"}}, nil},
		{nil, both},
	} {
		if got := find(tt.tags...); !slices.Equal(got, tt.want) {
			t.Errorf("%v found %v, want %v", tt.tags, got, tt.want)
		}
	}
	base := params{"RegionId": "cn-hangzhou", "ResourceType": "key"}
	for _, p := range []params{{"ResourceType": "bucket"}, {"NextToken": "*"}, {"Tag.21.Key": "x"}, {"ResourceId.51": "x"}, {"ResourceId.x": "x"}} {
		q := maps.Clone(base)
		maps.Copy(q, p)
		f.refused(400, "InvalidParameter", "ListTagResources", q)
	}
	f.refused(400, "MissingParameter", "ListTagResources", params{"ResourceType": "key"})
	if rows := f.ok("ListTagResources", params{"RegionId": "cn-hangzhou", "ResourceType": "secret"}).list("TagResources", "TagResource"); len(rows) != 0 {
		t.Errorf("there are secrets: %v", rows)
	}
}

func TestListTagResourcesPages(t *testing.T) {
	f := start(t, emulator.Config{})
	for range 11 {
		f.ok("CreateKey", params{"Tags": numberedTags(t, 20)})
	}
	seen := map[string]bool{}
	var sizes []int
	for next := ""; ; {
		a := f.ok("ListTagResources", params{"RegionId": "cn-hangzhou", "ResourceType": "key", "NextToken": next})
		rows := a.list("TagResources", "TagResource")
		sizes = append(sizes, len(rows))
		for _, row := range rows {
			seen[fmt.Sprint(row)] = true
		}
		if next = a.text("NextToken"); next == "" {
			break
		}
	}
	if !slices.Equal(sizes, []int{200, 20}) || len(seen) != 220 {
		t.Errorf("pages of %v rows, %d different ones", sizes, len(seen))
	}
}

func TestService(t *testing.T) {
	f := start(t, emulator.Config{})
	regions := f.ok("DescribeRegions", nil).list("Regions", "Region")
	if got := fmt.Sprint(regions); got != "[map[RegionId:cn-hangzhou] map[RegionId:cn-shanghai]]" {
		t.Errorf("regions %s", got)
	}
	if got := f.ok("DescribeAccountKmsStatus", nil).text("AccountStatus"); got != "Enabled" {
		t.Errorf("AccountStatus = %q", got)
	}
	f.refused(400, "Forbidden.Opened", "OpenKmsService", nil)
}
