package emulator_test

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

// matrix is the documentation's "Impact of CMK states on API call", written down
// a second time. Columns: Enabled, Disabled, PendingDeletion, PendingImport.
var matrix = map[string][4]string{
	"Encrypt":                         {"", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	"Decrypt":                         {"", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	"GenerateDataKey":                 {"", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	"GenerateDataKeyWithoutPlaintext": {"", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	"CreateKeyVersion":                {"UnsupportedOperation", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	"UpdateRotationPolicy":            {"", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	"DescribeKey":                     {},
	"ListKeys":                        {},
	"ListAliases":                     {},
	"ListAliasesByKeyId":              {},
	"DeleteAlias":                     {},
	"ListResourceTags":                {},
	"ListTagResources":                {},
	"DescribeKeyVersion":              {"", "", "", "Forbidden.KeyVersionNotFound"}, // never imported: no version
	"ListKeyVersions":                 {},
	"UpdateKeyDescription":            {"", "", "Rejected.PendingDeletion", ""},
	"TagResource":                     {"", "", "Rejected.PendingDeletion", ""},
	"UntagResource":                   {"", "", "Rejected.PendingDeletion", ""},
	"EnableKey":                       {"", "", "Rejected.StateModifiedFailed", "Rejected.StateModifiedFailed"},
	"DisableKey":                      {"", "", "Rejected.StateModifiedFailed", "Rejected.StateModifiedFailed"},
	"ScheduleKeyDeletion":             {"", "", "Rejected.StateModifiedFailed", ""},
	"CancelKeyDeletion":               {"Rejected.StateModifiedFailed", "Rejected.StateModifiedFailed", "", "Rejected.StateModifiedFailed"},
	"CreateAlias":                     {"", "", "Rejected.StateModifiedFailed", ""},
	"UpdateAlias":                     {"", "", "Rejected.PendingDeletion", ""},
	"GetParametersForImport":          {},
	"DeleteKeyMaterial":               {},
	"ImportKeyMaterial":               {"", "", "Rejected.StateModifiedFailed", ""},
	// The documentation leaves these rows open.
	"ReEncrypt":                {"", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	"SetDeletionProtection":    {"", "", "Rejected.PendingDeletion", ""},
	"ExportDataKey":            {"", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	"GenerateAndExportDataKey": {"", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	"GetKeyPolicy":             {},
	"SetKeyPolicy":             {"", "", "Rejected.PendingDeletion", ""},
	"TagResources":             {"", "", "Rejected.PendingDeletion", ""},
	"UntagResources":           {"", "", "Rejected.PendingDeletion", ""},
	"OpenKmsService":           {"Forbidden.Opened", "Forbidden.Opened", "Forbidden.Opened", "Forbidden.Opened"},
	"CreateKey":                {},
	"DescribeRegions":          {},
	"DescribeAccountKmsStatus": {},
}

// subject is a key in some state and all that an operation may need of it.
type subject struct {
	id, arn, alias, blob, version string
	wrapped                       params // for ImportKeyMaterial
}

var states = []string{"Enabled", "Disabled", "PendingDeletion", "PendingImport"}

// newSubject makes a key with a history and puts it into a state. Importing
// takes a while, so only those operations get a key with imported material that
// look at it.
func newSubject(f *fixture, action, state string) subject {
	f.t.Helper()
	importing := slices.Contains([]string{"GetParametersForImport", "DeleteKeyMaterial", "ImportKeyMaterial"}, action)
	needsBlob := slices.Contains([]string{"Decrypt", "ReEncrypt", "ExportDataKey"}, action)
	s := subject{version: "00000000-0000-0000-0000-000000000000"}
	switch {
	case importing || state == "PendingImport":
		s.id = f.newKey("EXTERNAL")
	default:
		s.id = f.newKey("Aliyun_KMS")
	}
	if action == "ImportKeyMaterial" || state == "PendingImport" && needsBlob || state != "PendingImport" && importing {
		s.wrapped = f.wrapped(s.id, "RSAES_OAEP_SHA_256", wrapOAEP256, material(32))
	}
	if s.wrapped != nil && (state != "PendingImport" || needsBlob) {
		f.ok("ImportKeyMaterial", s.wrapped)
	}
	meta := f.ok("DescribeKey", params{"KeyId": s.id})
	s.arn = meta.text("KeyMetadata", "Arn")
	if v := meta.text("KeyMetadata", "PrimaryKeyVersion"); v != "" {
		s.version = v
	}
	if needsBlob {
		s.blob = f.encrypt(s.id, "x")
	}
	s.alias = "alias/" + s.id
	f.ok("CreateAlias", params{"KeyId": s.id, "AliasName": s.alias})
	switch state {
	case "Disabled":
		f.ok("DisableKey", params{"KeyId": s.id})
	case "PendingDeletion":
		f.ok("ScheduleKeyDeletion", params{"KeyId": s.id, "PendingWindowInDays": "7"})
	case "PendingImport":
		if needsBlob {
			f.ok("DeleteKeyMaterial", params{"KeyId": s.id})
		}
	}
	if got := f.keyState(s.id); got != state {
		f.t.Fatalf("the key is %s, not %s", got, state)
	}
	return s
}

// arguments are parameters with which an operation works on an enabled key.
func (s subject) arguments(f *fixture, action string) params {
	switch action {
	case "Encrypt":
		return params{"KeyId": s.id, "Plaintext": "eA=="}
	case "Decrypt":
		return params{"CiphertextBlob": s.blob}
	case "ReEncrypt":
		return params{"CiphertextBlob": s.blob, "DestinationKeyId": f.newKey("Aliyun_KMS")}
	case "ExportDataKey":
		return exporting(f.t, params{"CiphertextBlob": s.blob})
	case "GenerateAndExportDataKey":
		return exporting(f.t, params{"KeyId": s.id})
	case "SetKeyPolicy":
		return params{"KeyId": s.id, "Policy": f.ok("GetKeyPolicy", params{"KeyId": s.id}).text("Policy")}
	case "TagResources":
		return params{"RegionId": "cn-hangzhou", "ResourceType": "key", "ResourceId.1": s.id, "Tag.1.Key": "a", "Tag.1.Value": "b"}
	case "UntagResources":
		return params{"RegionId": "cn-hangzhou", "ResourceType": "key", "ResourceId.1": s.id, "TagKey.1": "a"}
	case "CreateKey", "ListKeys", "ListAliases", "DescribeRegions", "DescribeAccountKmsStatus", "OpenKmsService":
		return nil
	case "UpdateKeyDescription":
		return params{"KeyId": s.id, "Description": "d"}
	case "SetDeletionProtection":
		return params{"ProtectedResourceArn": s.arn, "EnableDeletionProtection": "true"}
	case "ScheduleKeyDeletion":
		return params{"KeyId": s.id, "PendingWindowInDays": "366"}
	case "GetParametersForImport":
		return params{"KeyId": s.id, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
	case "ImportKeyMaterial":
		return s.wrapped
	case "DescribeKeyVersion":
		return params{"KeyId": s.id, "KeyVersionId": s.version}
	case "UpdateRotationPolicy":
		return params{"KeyId": s.id, "EnableAutomaticRotation": "true", "RotationInterval": "365d"}
	case "CreateAlias":
		return params{"KeyId": s.id, "AliasName": s.alias + "-2"}
	case "UpdateAlias":
		return params{"KeyId": s.id, "AliasName": s.alias}
	case "DeleteAlias":
		return params{"AliasName": s.alias}
	case "TagResource":
		return params{"KeyId": s.id, "Tags": `[{"TagKey":"a","TagValue":"b"}]`}
	case "UntagResource":
		return params{"KeyId": s.id, "TagKeys": `["a"]`}
	case "ListTagResources":
		return params{"RegionId": "cn-hangzhou", "ResourceType": "key", "ResourceId.1": s.id}
	default:
		return params{"KeyId": s.id}
	}
}

func TestStates(t *testing.T) {
	f := start(t, emulator.Config{})
	for _, action := range emulator.Actions() {
		row, ok := matrix[action]
		if !ok {
			t.Errorf("%s is in no row of the matrix", action)
		}
		for i, state := range states {
			t.Run(action+"/"+state, func(t *testing.T) {
				f := &fixture{t: t, server: f.server, host: f.host, clock: f.clock, who: rootCaller}
				s := newSubject(f, action, state)
				a := f.call(action, s.arguments(f, action))
				wantStatus := http.StatusOK
				switch row[i] {
				case "":
				case "UnsupportedOperation", "Forbidden.Opened":
					wantStatus = http.StatusBadRequest
				case "Forbidden.KeyVersionNotFound":
					wantStatus = http.StatusNotFound
				default:
					wantStatus = http.StatusConflict
				}
				if a.status != wantStatus || a.code() != row[i] {
					t.Errorf("answered %d %v, want %d %s", a.status, a.body, wantStatus, row[i])
				}
			})
		}
	}
}

func TestTransitions(t *testing.T) {
	f := start(t, emulator.Config{})
	id := f.newKey("Aliyun_KMS")
	for _, step := range []struct {
		action string
		p      params
		want   string
	}{
		{"DisableKey", nil, "Disabled"},
		{"DisableKey", nil, "Disabled"},
		{"EnableKey", nil, "Enabled"},
		{"EnableKey", nil, "Enabled"},
		{"DisableKey", nil, "Disabled"},
		{"ScheduleKeyDeletion", params{"PendingWindowInDays": "30"}, "PendingDeletion"},
		{"CancelKeyDeletion", nil, "Enabled"},
	} {
		p := params{"KeyId": id}
		maps.Copy(p, step.p)
		f.ok(step.action, p)
		if got := f.keyState(id); got != step.want {
			t.Fatalf("%s made the key %s, want %s", step.action, got, step.want)
		}
	}
	for _, days := range []string{"6", "367", "x"} {
		f.refused(400, "InvalidParameter", "ScheduleKeyDeletion", params{"KeyId": id, "PendingWindowInDays": days})
	}
}

func TestDeletionProtection(t *testing.T) {
	f := start(t, emulator.Config{})
	meta := f.ok("CreateKey", nil)
	id, arn := meta.text("KeyMetadata", "KeyId"), meta.text("KeyMetadata", "Arn")
	f.ok("SetDeletionProtection", params{"ProtectedResourceArn": arn, "EnableDeletionProtection": "true", "DeletionProtectionDescription": "why"})
	got := f.ok("DescribeKey", params{"KeyId": id})
	if got.text("KeyMetadata", "DeletionProtection") != "Enabled" || got.text("KeyMetadata", "DeletionProtectionDescription") != "why" {
		t.Errorf("got %v", got.body)
	}
	f.refused(409, "Rejected.StateModifiedFailed", "ScheduleKeyDeletion", params{"KeyId": id, "PendingWindowInDays": "7"})
	f.ok("SetDeletionProtection", params{"KeyId": id, "EnableDeletionProtection": "false"})
	f.ok("ScheduleKeyDeletion", params{"KeyId": id, "PendingWindowInDays": "7"})
	f.refused(400, "InvalidParameter", "SetDeletionProtection", params{"ProtectedResourceArn": id, "EnableDeletionProtection": "true"})
	f.refused(400, "MissingParameter", "SetDeletionProtection", params{"EnableDeletionProtection": "true"})
}
