package client_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

// fake is a daemon that encrypts by reversing the bytes.
type fake struct {
	v1.UnimplementedCryptoServer
	calls   atomic.Int64
	largest atomic.Int64 // batch, in items
}

func reverse(in []byte) []byte {
	out := make([]byte, len(in))
	for i, b := range in {
		out[len(in)-1-i] = b
	}
	return out
}

func (f *fake) Encrypt(_ context.Context, req *v1.EncryptRequest) (*v1.EncryptResponse, error) {
	f.calls.Add(1)
	if req.GetKey() != "payments" {
		s, err := status.New(codes.PermissionDenied, "no grant lets uid 1000 encrypt with key "+req.GetKey()).
			WithDetails(&errdetails.ErrorInfo{Domain: "kmsbroker", Reason: "NO_GRANT", Metadata: map[string]string{"hint": "ask for one"}})
		if err != nil {
			return nil, err
		}
		return nil, s.Err()
	}
	return &v1.EncryptResponse{Key: req.GetKey(), CiphertextBlob: base64.StdEncoding.EncodeToString(reverse(req.GetPlaintext()))}, nil
}

func (f *fake) Decrypt(_ context.Context, req *v1.DecryptRequest) (*v1.DecryptResponse, error) {
	f.calls.Add(1)
	blob, err := base64.StdEncoding.DecodeString(req.GetCiphertextBlob())
	return &v1.DecryptResponse{Key: "payments", Plaintext: reverse(blob)}, err
}

func (f *fake) EncryptBatch(ctx context.Context, req *v1.EncryptBatchRequest) (*v1.EncryptBatchResponse, error) {
	f.largest.Store(max(f.largest.Load(), int64(len(req.GetItems()))))
	answer := &v1.EncryptBatchResponse{}
	for _, item := range req.GetItems() {
		done, err := f.Encrypt(ctx, item)
		if err != nil {
			answer.Items = append(answer.Items, &v1.EncryptBatchResponse_Item{Result: &v1.EncryptBatchResponse_Item_Failed{
				Failed: &v1.Failure{Code: int32(status.Code(err)), Reason: "NO_GRANT", Message: "no"},
			}})
			continue
		}
		answer.Items = append(answer.Items, &v1.EncryptBatchResponse_Item{Result: &v1.EncryptBatchResponse_Item_Done{Done: done}})
	}
	return answer, nil
}

func (f *fake) ListKeys(context.Context, *v1.ListOwnKeysRequest) (*v1.ListOwnKeysResponse, error) {
	return &v1.ListOwnKeysResponse{Keys: []*v1.ListOwnKeysResponse_Key{{
		Name: "payments", Region: "cn-hangzhou", Regions: []string{"cn-hangzhou"},
		Operations: []*v1.ListOwnKeysResponse_Operation{{Name: "encrypt"}, {Name: "decrypt", RequiredContext: map[string]string{"tenant": "a"}}},
	}}}, nil
}

// serve answers on a socket until stop is called.
func (f *fake) serve(path string) (stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(256 << 10)) // as the daemon's
	v1.RegisterCryptoServer(server, f)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	return func() { server.Stop(); serving.Wait() }, nil
}

// socketPath is short enough for a socket, wherever tests keep their files.
func socketPath() (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "kb")
	return filepath.Join(dir, "kms.sock"), func() { os.RemoveAll(dir) }, err
}

// socket is where the daemon of the examples is.
var socket string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	path, remove, err := socketPath()
	if err == nil {
		defer remove()
		var stop func()
		if stop, err = (&fake{}).serve(path); err == nil {
			defer stop()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	socket = path
	return m.Run()
}
