package client_test

import (
	"bytes"
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
	"github.com/kmsbroker/kmsbroker/envelope"
)

// fake is a daemon that encrypts by reversing the bytes.
type fake struct {
	v1.UnimplementedCryptoServer
	calls   atomic.Int64
	largest atomic.Int64 // batch, in items
	whole   atomic.Int64 // messages that the daemon sealed or opened
	size    atomic.Uint64
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

// dataKey is the one of all messages.
var dataKey = bytes.Repeat([]byte{47}, envelope.KeySize)

func (f *fake) create(key string, regions []string, encryptionContext map[string]string) (*envelope.Message, error) {
	f.calls.Add(1)
	if len(regions) == 0 {
		regions = []string{"cn-hangzhou", "cn-shanghai"}
	}
	wrapped := make([]envelope.WrappedKey, len(regions))
	for i, region := range regions {
		wrapped[i] = envelope.WrappedKey{Region: region, KeyID: "key-1", CiphertextBlob: "YmxvYg=="}
	}
	return envelope.New(key, wrapped, dataKey, encryptionContext)
}

func (f *fake) CreateMessageKey(_ context.Context, req *v1.CreateMessageKeyRequest) (*v1.CreateMessageKeyResponse, error) {
	f.size.Store(req.GetSize())
	m, err := f.create(req.GetKey(), req.GetRegions(), req.GetEncryptionContext())
	if err != nil {
		return nil, err
	}
	return &v1.CreateMessageKeyResponse{Header: m.Header(), MessageKey: m.Key()}, nil
}

// GetMessageKey believes every header, as a daemon does not.
func (f *fake) GetMessageKey(_ context.Context, req *v1.GetMessageKeyRequest) (*v1.GetMessageKeyResponse, error) {
	f.calls.Add(1)
	m, err := envelope.WithDataKey(req.GetHeader(), dataKey, req.GetEncryptionContext())
	if err != nil {
		return &v1.GetMessageKeyResponse{Key: "payments", MessageKey: dataKey}, nil
	}
	return &v1.GetMessageKeyResponse{Key: "payments", MessageKey: m.Key()}, nil
}

func (f *fake) Seal(_ context.Context, req *v1.SealRequest) (*v1.SealResponse, error) {
	f.whole.Add(1)
	m, err := f.create(req.GetKey(), req.GetRegions(), req.GetEncryptionContext())
	if err != nil {
		return nil, err
	}
	sealed, err := m.Seal(req.GetPlaintext())
	return &v1.SealResponse{Message: sealed}, err
}

func (f *fake) Open(_ context.Context, req *v1.OpenRequest) (*v1.OpenResponse, error) {
	f.whole.Add(1)
	header, segments, err := envelope.Split(req.GetMessage())
	if err != nil {
		return nil, err
	}
	m, err := envelope.WithDataKey(header, dataKey, req.GetEncryptionContext())
	if err != nil {
		return nil, err
	}
	plaintext, err := m.Open(segments)
	return &v1.OpenResponse{Key: "payments", Plaintext: plaintext}, err
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
