package kmsapi

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	wrappingKeyDER = publicKeyDER(newRSA(2048))
	wrappingKey    = base64.StdEncoding.EncodeToString(wrappingKeyDER)
	someTime       = time.Date(2026, 9, 1, 10, 20, 30, 0, time.UTC)
)

func newRSA(bits int) any {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return &key.PublicKey
}

func publicKeyDER(key any) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return der
}

const metadata = `{"RequestId":"r-1","KeyMetadata":{"KeyId":"key-1","Arn":"acs:kms:cn-hangzhou:1:key/key-1","KeyState":"PendingImport",` +
	`"KeyUsage":"ENCRYPT/DECRYPT","KeySpec":"Aliyun_AES_256","Origin":"EXTERNAL","ProtectionLevel":"HSM","Description":"","Creator":"1",` +
	`"CreationDate":"2026-09-01T10:20:30Z","PrimaryKeyVersion":"v-1","DeleteDate":"","MaterialExpireTime":"2026-09-01T10:20:30Z",` +
	`"DeletionProtection":"Disabled","DKMSInstanceId":"kst-1"}}`

var wantMetadata = &KeyMetadata{
	KeyID: "key-1", ARN: "acs:kms:cn-hangzhou:1:key/key-1", State: PendingImport, Usage: UsageEncrypt, Spec: KeySpecAES256,
	Origin: OriginExternal, ProtectionLevel: ProtectionHSM, Creator: "1", CreatedAt: someTime, PrimaryKeyVersion: "v-1",
	MaterialExpireTime: someTime, DeletionProtection: "Disabled", InstanceID: "kst-1", RequestID: "r-1",
}

type operation struct {
	name   string // the action
	method string // of KMS, when it is not the action's name
	call   func(ctx context.Context, c *Client) (any, error)
	params map[string]string // beyond the common ones
	answer string
	want   any
}

const ackAnswer = `{"RequestId":"r-1"}`

var operations = []operation{
	{
		name: "CreateKey",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.CreateKey(ctx, CreateKeyRequest{
				Origin: OriginExternal, KeySpec: KeySpecAES256, KeyUsage: UsageEncrypt, ProtectionLevel: ProtectionHSM,
				Description: "a & b", InstanceID: "kst-1", Tags: []Tag{{"import-id", "42"}, {"empty", ""}},
			})
		},
		params: map[string]string{
			"Origin": "EXTERNAL", "KeySpec": "Aliyun_AES_256", "KeyUsage": "ENCRYPT/DECRYPT", "ProtectionLevel": "HSM", "Description": "a & b",
			"DKMSInstanceId": "kst-1", "Tags": `[{"TagKey":"import-id","TagValue":"42"},{"TagKey":"empty","TagValue":""}]`,
		},
		answer: metadata, want: wantMetadata,
	},
	{
		name:   "DescribeKey",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.DescribeKey(ctx, "alias/a") },
		params: map[string]string{"KeyId": "alias/a"},
		answer: metadata, want: wantMetadata,
	},
	{
		name:   "ListKeys",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.ListKeys(ctx, Page{Number: 2, Size: 1}) },
		params: map[string]string{"PageNumber": "2", "PageSize": "1"},
		answer: `{"RequestId":"r-1","PageNumber":2,"PageSize":1,"TotalCount":3,"Keys":{"Key":[{"KeyId":"k","KeyArn":"a"}]}}`,
		want:   &KeyList{Keys: []KeyRef{{"k", "a"}}, Page: Page{2, 1}, Total: 3, RequestID: "r-1"},
	},
	{
		name:   "EnableKey",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.EnableKey(ctx, "k") },
		params: map[string]string{"KeyId": "k"}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name:   "DisableKey",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.DisableKey(ctx, "k") },
		params: map[string]string{"KeyId": "k"}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name:   "ScheduleKeyDeletion",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.ScheduleKeyDeletion(ctx, "k", 7) },
		params: map[string]string{"KeyId": "k", "PendingWindowInDays": "7"}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name:   "CancelKeyDeletion",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.CancelKeyDeletion(ctx, "k") },
		params: map[string]string{"KeyId": "k"}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name: "GetParametersForImport",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.GetParametersForImport(ctx, ImportParametersRequest{KeyID: "k", WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: WrappingRSA2048})
		},
		params: map[string]string{"KeyId": "k", "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"},
		answer: `{"RequestId":"r-1","KeyId":"k","PublicKey":"` + wrappingKey + `","ImportToken":"dG9rZW4=","TokenExpireTime":"2026-09-01T10:20:30Z"}`,
		want:   &ImportParameters{KeyID: "k", PublicKey: wrappingKeyDER, ImportToken: []byte("token"), ExpiresAt: someTime, RequestID: "r-1"},
	},
	{
		name: "ImportKeyMaterial",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.ImportKeyMaterial(ctx, ImportKeyMaterialRequest{KeyID: "k", EncryptedKeyMaterial: []byte{0xfb, 0xff}, ImportToken: []byte("token")})
		},
		params: map[string]string{"KeyId": "k", "EncryptedKeyMaterial": "+/8=", "ImportToken": "dG9rZW4=", "KeyMaterialExpireUnix": "0"},
		answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name: "ImportKeyMaterial",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.ImportKeyMaterial(ctx, ImportKeyMaterialRequest{KeyID: "k", EncryptedKeyMaterial: []byte{1}, ImportToken: []byte("token"), ExpiresAt: someTime})
		},
		params: map[string]string{"KeyId": "k", "EncryptedKeyMaterial": "AQ==", "ImportToken": "dG9rZW4=", "KeyMaterialExpireUnix": "1788258030"},
		answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name:   "DeleteKeyMaterial",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.DeleteKeyMaterial(ctx, "k") },
		params: map[string]string{"KeyId": "k"}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name:   "CreateAlias",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.CreateAlias(ctx, "k", "alias/a") },
		params: map[string]string{"KeyId": "k", "AliasName": "alias/a"}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name:   "UpdateAlias",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.UpdateAlias(ctx, "k", "alias/a") },
		params: map[string]string{"KeyId": "k", "AliasName": "alias/a"}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name:   "DeleteAlias",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.DeleteAlias(ctx, "alias/a") },
		params: map[string]string{"AliasName": "alias/a"}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name:   "ListAliases",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.ListAliases(ctx, Page{}) },
		params: map[string]string{},
		answer: `{"RequestId":"r-1","PageNumber":1,"PageSize":10,"TotalCount":1,"Aliases":{"Alias":[{"KeyId":"k","AliasName":"alias/a","AliasArn":"arn"}]}}`,
		want:   &AliasList{Aliases: []Alias{{Name: "alias/a", KeyID: "k", ARN: "arn"}}, Page: Page{1, 10}, Total: 1, RequestID: "r-1"},
	},
	{
		name: "ListTagResources",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.ListTagResources(ctx, ListTagResourcesRequest{Tags: []Tag{{"a", "1"}, {"b", "2"}}, NextToken: "n-1"})
		},
		params: map[string]string{"ResourceType": "key", "NextToken": "n-1", "Tag.1.Key": "a", "Tag.1.Value": "1", "Tag.2.Key": "b", "Tag.2.Value": "2"},
		answer: `{"RequestId":"r-1","NextToken":"n-2","TagResources":{"TagResource":[{"ResourceId":"k1","TagKey":"a","TagValue":"1"},` +
			`{"ResourceId":"k1","TagKey":"b","TagValue":"2"},{"ResourceId":"k2","TagKey":"a","TagValue":"1"}]}}`,
		want: &TaggedKeys{KeyIDs: []string{"k1", "k2"}, NextToken: "n-2", RequestID: "r-1"},
	},
	{
		name:   "UpdateKeyDescription",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.UpdateKeyDescription(ctx, "k", "a & b") },
		params: map[string]string{"KeyId": "k", "Description": "a & b"}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name:   "UpdateKeyDescription", // an empty one
		call:   func(ctx context.Context, c *Client) (any, error) { return c.UpdateKeyDescription(ctx, "k", "") },
		params: map[string]string{"KeyId": "k", "Description": ""}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name: "SetDeletionProtection",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.SetDeletionProtection(ctx, "acs:kms:cn-hangzhou:1:key/k", true, "in use")
		},
		params: map[string]string{"ProtectedResourceArn": "acs:kms:cn-hangzhou:1:key/k", "EnableDeletionProtection": "true", "DeletionProtectionDescription": "in use"},
		answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name: "SetDeletionProtection", // off
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.SetDeletionProtection(ctx, "acs:kms:cn-hangzhou:1:key/k", false, "")
		},
		params: map[string]string{"ProtectedResourceArn": "acs:kms:cn-hangzhou:1:key/k", "EnableDeletionProtection": "false"},
		answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name: "ListAliasesByKeyId", method: "ListAliasesByKeyID",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.ListAliasesByKeyID(ctx, "k", Page{Number: 1, Size: 10})
		},
		params: map[string]string{"KeyId": "k", "PageNumber": "1", "PageSize": "10"},
		answer: `{"RequestId":"r-1","PageNumber":1,"PageSize":10,"TotalCount":1,"Aliases":{"Alias":[{"KeyId":"k","AliasName":"alias/a","AliasArn":"arn"}]}}`,
		want:   &AliasList{Aliases: []Alias{{Name: "alias/a", KeyID: "k", ARN: "arn"}}, Page: Page{1, 10}, Total: 1, RequestID: "r-1"},
	},
	{
		name: "TagResource", method: "TagKey",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.TagKey(ctx, "k", []Tag{{"team", "payments"}, {"empty", ""}})
		},
		params: map[string]string{"KeyId": "k", "Tags": `[{"TagKey":"team","TagValue":"payments"},{"TagKey":"empty","TagValue":""}]`},
		answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name: "UntagResource", method: "UntagKey",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.UntagKey(ctx, "k", []string{"a", "b"}) },
		params: map[string]string{"KeyId": "k", "TagKeys": `["a","b"]`}, answer: ackAnswer, want: Ack{"r-1"},
	},
	{
		name: "ListResourceTags", method: "KeyTags",
		call:   func(ctx context.Context, c *Client) (any, error) { return c.KeyTags(ctx, "k") },
		params: map[string]string{"KeyId": "k"},
		answer: `{"RequestId":"r-1","Tags":{"Tag":[{"KeyId":"k","TagKey":"a","TagValue":"1"},{"KeyId":"k","TagKey":"b","TagValue":""}]}}`,
		want:   []Tag{{"a", "1"}, {"b", ""}},
	},
	{
		name: "Encrypt",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.Encrypt(ctx, EncryptRequest{KeyID: "alias/a", Plaintext: []byte("hello"), Context: map[string]string{"b": "<2>", "a": "1"}})
		},
		params: map[string]string{"KeyId": "alias/a", "Plaintext": "aGVsbG8=", "EncryptionContext": `{"a":"1","b":"<2>"}`},
		answer: `{"RequestId":"r-1","KeyId":"k","KeyVersionId":"v","CiphertextBlob":"blob"}`,
		want:   &EncryptResponse{KeyID: "k", KeyVersionID: "v", CiphertextBlob: "blob", RequestID: "r-1"},
	},
	{
		name: "Decrypt",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.Decrypt(ctx, DecryptRequest{CiphertextBlob: "blob", Context: map[string]string{"a": "1"}})
		},
		params: map[string]string{"CiphertextBlob": "blob", "EncryptionContext": `{"a":"1"}`},
		answer: `{"RequestId":"r-1","KeyId":"k","KeyVersionId":"v","Plaintext":"aGVsbG8="}`,
		want:   &DecryptResponse{KeyID: "k", KeyVersionID: "v", Plaintext: []byte("hello"), RequestID: "r-1"},
	},
	{
		name: "GenerateDataKey",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.GenerateDataKey(ctx, DataKeyRequest{KeyID: "k", Bytes: 5})
		},
		params: map[string]string{"KeyId": "k", "NumberOfBytes": "5"},
		answer: `{"RequestId":"r-1","KeyId":"k","KeyVersionId":"v","CiphertextBlob":"blob","Plaintext":"aGVsbG8="}`,
		want:   &DataKeyResponse{KeyID: "k", KeyVersionID: "v", CiphertextBlob: "blob", Plaintext: []byte("hello"), RequestID: "r-1"},
	},
	{
		name: "GenerateDataKeyWithoutPlaintext",
		call: func(ctx context.Context, c *Client) (any, error) {
			return c.GenerateDataKeyWithoutPlaintext(ctx, DataKeyRequest{KeyID: "k", Context: map[string]string{"a": "1"}})
		},
		params: map[string]string{"KeyId": "k", "EncryptionContext": `{"a":"1"}`},
		answer: `{"RequestId":"r-1","KeyId":"k","KeyVersionId":"v","CiphertextBlob":"blob"}`,
		want:   &DataKeyResponse{KeyID: "k", KeyVersionID: "v", CiphertextBlob: "blob", RequestID: "r-1"},
	},
}

var commonParameters = []string{
	"Action", "Version", "Format", "AccessKeyId", "SecurityToken", "Timestamp", "RegionId",
	"SignatureMethod", "SignatureVersion", "SignatureNonce", "SignatureType", "Signature",
}

func TestOperations(t *testing.T) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			s, c := newServer(t, answerWith(200, op.answer))
			got, err := op.call(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, op.want) {
				t.Errorf("got  %+v\nwant %+v", got, op.want)
			}
			form := s.calls()[0]
			if form.Get("Action") != op.name {
				t.Errorf("Action %q", form.Get("Action"))
			}
			params := map[string]string{}
			for name := range form {
				if !slices.Contains(commonParameters, name) {
					params[name] = form.Get(name)
				}
			}
			if !maps.Equal(params, op.params) {
				t.Errorf("parameters %v\nwant       %v", params, op.params)
			}
		})
	}
}

// TestEveryOperationIsTested counts the methods of KMS.
func TestEveryOperationIsTested(t *testing.T) {
	tested := map[string]bool{}
	for _, op := range operations {
		tested[cmp.Or(op.method, op.name)] = true
	}
	for m := range reflect.TypeFor[KMS]().Methods() {
		if !tested[m.Name] {
			t.Errorf("%s has no test", m.Name)
		}
	}
}

// TestRefusal reads an error of the service, for every operation.
func TestRefusal(t *testing.T) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			_, c := newServer(t, answerWith(409, `{"RequestId":"r-9","HostId":"h","Code":"Rejected.Disabled","Message":"The request was rejected.","Recommend":"x"}`))
			_, err := op.call(t.Context(), c)
			want := Error{Operation: op.name, Code: CodeDisabled, Status: 409, Message: "The request was rejected.", RequestID: "r-9", Stage: StageAnswered}
			if e, ok := errors.AsType[*Error](err); !ok || *e != want {
				t.Fatalf("got %#v, want %#v", err, want)
			}
		})
	}
}

// TestBrokenAnswers breaks one field of a good answer at a time.
func TestBrokenAnswers(t *testing.T) {
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small := base64.StdEncoding.EncodeToString(publicKeyDER(newRSA(1024)))
	ec := base64.StdEncoding.EncodeToString(publicKeyDER(&ecKey.PublicKey))
	tests := []struct{ operation, old, broken, field string }{
		{"EnableKey", `"r-1"`, `""`, "RequestId"},
		{"EnableKey", `"r-1"`, `"r 1\u001b"`, "RequestId"},
		{"DescribeKey", `"key-1"`, `""`, "KeyId"},
		{"DescribeKey", `"key-1"`, `null`, "KeyId"},
		{"DescribeKey", `"KeyId"`, `"keyid"`, "KeyId"},
		{"CreateKey", `"PendingImport"`, `"Melted"`, "KeyState"},
		{"CreateKey", `"PendingImport"`, `""`, "KeyState"},
		{"CreateKey", `"EXTERNAL"`, `""`, "Origin"},
		{"CreateKey", `"2026-09-01T10:20:30Z","Primary`, `"","Primary`, "CreationDate"},
		{"CreateKey", `"2026-09-01T10:20:30Z","Primary`, `"yesterday","Primary`, "CreationDate"},
		{"CreateKey", `"MaterialExpireTime":"2026-09-01T10:20:30Z"`, `"MaterialExpireTime":"1788258030"`, "MaterialExpireTime"},
		{"ListKeys", `"k"`, `""`, "KeyId"},
		{"ListKeys", `"PageNumber":2`, `"PageNumber":-1`, "PageNumber"},
		{"ListKeys", `"PageSize":1`, `"PageSize":0`, "PageSize"},
		{"ListKeys", `"TotalCount":3`, `"TotalCount":0`, "TotalCount"},
		{"ListAliases", `"alias/a"`, `""`, "AliasName"},
		{"ListTagResources", `"k2"`, `""`, "ResourceId"},
		{"ListAliasesByKeyId", `"arn"`, `""`, "AliasArn"},
		{"ListAliasesByKeyId", `"TotalCount":1`, `"TotalCount":0`, "TotalCount"},
		{"ListResourceTags", `"b"`, `""`, "TagKey"},
		{"GetParametersForImport", `"dG9rZW4="`, `"not base64!"`, "ImportToken"},
		{"GetParametersForImport", `"dG9rZW4="`, `""`, "ImportToken"},
		{"GetParametersForImport", `"2026-09-01T10:20:30Z"`, `""`, "TokenExpireTime"},
		{"GetParametersForImport", wrappingKey, `dG9rZW4=`, "PublicKey"},
		{"GetParametersForImport", wrappingKey, small, "PublicKey"},
		{"GetParametersForImport", wrappingKey, ec, "PublicKey"},
		{"Encrypt", `"k"`, `""`, "KeyId"},
		{"Encrypt", `"blob"`, `""`, "CiphertextBlob"},
		{"Decrypt", `"k"`, `""`, "KeyId"},
		{"Decrypt", `"aGVsbG8="`, `"aGVsbG8"`, "Plaintext"},
		{"Decrypt", `"aGVsbG8="`, `""`, "Plaintext"},
		{"GenerateDataKey", `"aGVsbG8="`, `"aGVsbA=="`, "Plaintext"},
		{"GenerateDataKey", `"blob"`, `""`, "CiphertextBlob"},
		{"GenerateDataKeyWithoutPlaintext", `"blob"`, `""`, "CiphertextBlob"},
	}
	for _, tt := range tests {
		t.Run(tt.operation+"/"+tt.field, func(t *testing.T) {
			i := slices.IndexFunc(operations, func(op operation) bool { return op.name == tt.operation })
			broken := strings.Replace(operations[i].answer, tt.old, tt.broken, 1)
			if broken == operations[i].answer {
				t.Fatal("the answer was not changed")
			}
			_, c := newServer(t, answerWith(200, broken))
			got, err := operations[i].call(t.Context(), c)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Status != http.StatusOK || e.Code != "" || e.Operation != tt.operation {
				t.Fatalf("got %+v, %#v", got, err)
			}
			if !strings.HasPrefix(e.Cause.Error(), tt.field+" in the answer ") {
				t.Errorf("cause %q does not name %s", e.Cause, tt.field)
			}
			if v := reflect.ValueOf(got); v.Kind() == reflect.Pointer && !v.IsNil() {
				t.Errorf("an answer besides the error: %+v", got)
			}
		})
	}
}

func TestRefusedHere(t *testing.T) {
	s, c := newServer(t, answerWith(200, ackAnswer))
	_, err := c.ImportKeyMaterial(t.Context(), ImportKeyMaterialRequest{KeyID: "k", ExpiresAt: time.Unix(0, 0)})
	if err == nil {
		t.Error("an expiry that means never was sent")
	}
	_, err = c.Encrypt(t.Context(), EncryptRequest{KeyID: "k", Context: map[string]string{"a": "\xff"}})
	if err == nil {
		t.Error("an encryption context that JSON would change was sent")
	}
	if n := len(s.calls()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}
