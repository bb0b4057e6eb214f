package reliable

import (
	"context"
	"errors"
	"net"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an endpoint that does what it is told to each call.
type fake struct {
	do func(ctx context.Context, operation string) error

	mu    sync.Mutex
	calls []string // operations
	times []time.Time
}

// newFake makes an endpoint that answers n calls with failure, and then well. A
// negative n never ends.
func newFake(n int, failure error) *fake {
	var mu sync.Mutex
	return &fake{do: func(context.Context, string) error {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 {
			return nil
		}
		n--
		return failure
	}}
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func run[T any](ctx context.Context, f *fake, operation string) (T, error) {
	f.mu.Lock()
	f.calls, f.times = append(f.calls, operation), append(f.times, time.Now())
	do := f.do
	f.mu.Unlock()
	var result T
	if t := reflect.TypeFor[T](); t.Kind() == reflect.Pointer {
		result = reflect.New(t.Elem()).Interface().(T)
	}
	return result, do(ctx, operation)
}

func (f *fake) CreateKey(ctx context.Context, _ kmsapi.CreateKeyRequest) (*kmsapi.KeyMetadata, error) {
	return run[*kmsapi.KeyMetadata](ctx, f, "CreateKey")
}

func (f *fake) DescribeKey(ctx context.Context, _ string) (*kmsapi.KeyMetadata, error) {
	return run[*kmsapi.KeyMetadata](ctx, f, "DescribeKey")
}

func (f *fake) ListKeys(ctx context.Context, _ kmsapi.Page) (*kmsapi.KeyList, error) {
	return run[*kmsapi.KeyList](ctx, f, "ListKeys")
}

func (f *fake) EnableKey(ctx context.Context, _ string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "EnableKey")
}

func (f *fake) DisableKey(ctx context.Context, _ string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "DisableKey")
}

func (f *fake) ScheduleKeyDeletion(ctx context.Context, _ string, _ int) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "ScheduleKeyDeletion")
}

func (f *fake) CancelKeyDeletion(ctx context.Context, _ string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "CancelKeyDeletion")
}

func (f *fake) UpdateKeyDescription(ctx context.Context, _, _ string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "UpdateKeyDescription")
}

func (f *fake) SetDeletionProtection(ctx context.Context, _ string, _ bool, _ string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "SetDeletionProtection")
}

func (f *fake) GetParametersForImport(ctx context.Context, _ kmsapi.ImportParametersRequest) (*kmsapi.ImportParameters, error) {
	return run[*kmsapi.ImportParameters](ctx, f, "GetParametersForImport")
}

func (f *fake) ImportKeyMaterial(ctx context.Context, _ kmsapi.ImportKeyMaterialRequest) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "ImportKeyMaterial")
}

func (f *fake) DeleteKeyMaterial(ctx context.Context, _ string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "DeleteKeyMaterial")
}

func (f *fake) CreateAlias(ctx context.Context, _, _ string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "CreateAlias")
}

func (f *fake) UpdateAlias(ctx context.Context, _, _ string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "UpdateAlias")
}

func (f *fake) DeleteAlias(ctx context.Context, _ string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "DeleteAlias")
}

func (f *fake) ListAliases(ctx context.Context, _ kmsapi.Page) (*kmsapi.AliasList, error) {
	return run[*kmsapi.AliasList](ctx, f, "ListAliases")
}

func (f *fake) ListAliasesByKeyID(ctx context.Context, _ string, _ kmsapi.Page) (*kmsapi.AliasList, error) {
	return run[*kmsapi.AliasList](ctx, f, "ListAliasesByKeyID")
}

func (f *fake) TagKey(ctx context.Context, _ string, _ []kmsapi.Tag) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "TagKey")
}

func (f *fake) UntagKey(ctx context.Context, _ string, _ []string) (kmsapi.Ack, error) {
	return run[kmsapi.Ack](ctx, f, "UntagKey")
}

func (f *fake) KeyTags(ctx context.Context, _ string) ([]kmsapi.Tag, error) {
	return run[[]kmsapi.Tag](ctx, f, "KeyTags")
}

func (f *fake) ListTagResources(ctx context.Context, _ kmsapi.ListTagResourcesRequest) (*kmsapi.TaggedKeys, error) {
	return run[*kmsapi.TaggedKeys](ctx, f, "ListTagResources")
}

func (f *fake) Encrypt(ctx context.Context, _ kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	return run[*kmsapi.EncryptResponse](ctx, f, "Encrypt")
}

func (f *fake) Decrypt(ctx context.Context, _ kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	return run[*kmsapi.DecryptResponse](ctx, f, "Decrypt")
}

func (f *fake) GenerateDataKey(ctx context.Context, _ kmsapi.DataKeyRequest) (*kmsapi.DataKeyResponse, error) {
	return run[*kmsapi.DataKeyResponse](ctx, f, "GenerateDataKey")
}

func (f *fake) GenerateDataKeyWithoutPlaintext(ctx context.Context, _ kmsapi.DataKeyRequest) (*kmsapi.DataKeyResponse, error) {
	return run[*kmsapi.DataKeyResponse](ctx, f, "GenerateDataKeyWithoutPlaintext")
}

// Failures as a kmsapi.Client reports them.
var (
	refused         = &kmsapi.Error{Code: kmsapi.CodeDisabled, Status: 409, Stage: kmsapi.StageAnswered}
	throttled       = &kmsapi.Error{Code: kmsapi.CodeThrottled, Status: 429, Stage: kmsapi.StageAnswered}
	gatewayThrottle = &kmsapi.Error{Code: "Throttling.User", Status: 400, Stage: kmsapi.StageAnswered}
	serverError     = &kmsapi.Error{
		Operation: "CreateKey", Code: "InternalFailure", Status: 500, Stage: kmsapi.StageAnswered,
		Message: "acs:kms:cn-hangzhou:1:key/of-somebody is out of order", RequestID: "r-1",
	}
	badGateway  = &kmsapi.Error{Status: 502, Stage: kmsapi.StageAnswered, Cause: errors.New("HTML")}
	malformed   = &kmsapi.Error{Status: 200, Stage: kmsapi.StageAnswered, Cause: errors.New("no KeyId")}
	redirected  = &kmsapi.Error{Status: 302, Stage: kmsapi.StageAnswered, Cause: errors.New("redirect")}
	cutShort    = &kmsapi.Error{Status: 200, Cause: errors.New("unexpected EOF")}
	reset       = &kmsapi.Error{Cause: &net.OpError{Op: "read", Err: syscall.ECONNRESET}}
	unreachable = &kmsapi.Error{Stage: kmsapi.StageConnect, Cause: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	badContext  = &kmsapi.Error{Stage: kmsapi.StageLocal, Cause: errors.New("the encryption context is not valid UTF-8")}
)

func newClient(t *testing.T, config Config, endpoints ...*fake) *Client {
	t.Helper()
	for i, f := range endpoints {
		config.Endpoints = append(config.Endpoints, Endpoint{Name: []string{"vpc", "public"}[i], KMS: f})
	}
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func encrypt(ctx context.Context, c kmsapi.KMS) error {
	_, err := c.Encrypt(ctx, kmsapi.EncryptRequest{})
	return err
}

// invoke calls a method of a KMS by its name, with empty arguments.
func invoke(ctx context.Context, kms kmsapi.KMS, method string) error {
	m := reflect.ValueOf(kms).MethodByName(method)
	args := []reflect.Value{reflect.ValueOf(ctx)}
	for i := 1; i < m.Type().NumIn(); i++ {
		args = append(args, reflect.Zero(m.Type().In(i)))
	}
	err, _ := reflect.TypeAssert[error](m.Call(args)[1])
	return err
}

func methods() []string {
	var names []string
	for m := range reflect.TypeFor[kmsapi.KMS]().Methods() {
		names = append(names, m.Name)
	}
	return names
}
