package client

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

// Result is what became of one item of a batch.
type Result[T any] struct {
	Value *T // nil when Err is not
	Err   error
}

// ToEncrypt is an item of EncryptBatch, as the arguments of Encrypt.
type ToEncrypt struct {
	Key               string
	Plaintext         []byte
	EncryptionContext map[string]string
}

// ToDecrypt is an item of DecryptBatch, as the arguments of DecryptWith. Key may be
// empty.
type ToDecrypt struct {
	Key               string
	CiphertextBlob    string
	EncryptionContext map[string]string
}

// ToReEncrypt is an item of ReEncryptBatch, as the arguments of ReEncrypt.
type ToReEncrypt struct {
	Key               string
	CiphertextBlob    string
	EncryptionContext map[string]string
}

// EncryptBatch encrypts any number of plaintexts. The results are in the order of
// the items, each with its own success or failure.
func (c *Client) EncryptBatch(ctx context.Context, items []ToEncrypt) []Result[Encrypted] {
	requests := make([]*v1.EncryptRequest, len(items))
	for i, item := range items {
		requests[i] = &v1.EncryptRequest{Key: item.Key, Region: c.region, Plaintext: item.Plaintext, EncryptionContext: item.EncryptionContext}
	}
	return inBatches(requests, func(some []*v1.EncryptRequest) ([]*v1.EncryptBatchResponse_Item, error) {
		answer, err := call(ctx, c, c.crypto.EncryptBatch, &v1.EncryptBatchRequest{Items: some})
		return answer.GetItems(), err
	}, func(item *v1.EncryptBatchResponse_Item) *Encrypted { return encrypted(item.GetDone()) })
}

// DecryptBatch opens any number of blobs, as EncryptBatch encrypts.
func (c *Client) DecryptBatch(ctx context.Context, items []ToDecrypt) []Result[Decrypted] {
	requests := make([]*v1.DecryptRequest, len(items))
	for i, item := range items {
		requests[i] = &v1.DecryptRequest{Key: item.Key, Region: c.region, CiphertextBlob: item.CiphertextBlob, EncryptionContext: item.EncryptionContext}
	}
	return inBatches(requests, func(some []*v1.DecryptRequest) ([]*v1.DecryptBatchResponse_Item, error) {
		answer, err := call(ctx, c, c.crypto.DecryptBatch, &v1.DecryptBatchRequest{Items: some})
		return answer.GetItems(), err
	}, func(item *v1.DecryptBatchResponse_Item) *Decrypted { return decrypted(item.GetDone()) })
}

// ReEncryptBatch moves any number of blobs, as ReEncrypt does.
func (c *Client) ReEncryptBatch(ctx context.Context, from *Client, items []ToReEncrypt) []Result[ReEncrypted] {
	requests := make([]*v1.ReEncryptRequest, len(items))
	for i, item := range items {
		requests[i] = &v1.ReEncryptRequest{
			CiphertextBlob: item.CiphertextBlob, SourceContext: item.EncryptionContext, SourceRegion: from.region,
			Key: item.Key, Context: item.EncryptionContext, Region: c.region,
		}
	}
	return inBatches(requests, func(some []*v1.ReEncryptRequest) ([]*v1.ReEncryptBatchResponse_Item, error) {
		answer, err := call(ctx, c, c.crypto.ReEncryptBatch, &v1.ReEncryptBatchRequest{Items: some})
		return answer.GetItems(), err
	}, func(item *v1.ReEncryptBatchResponse_Item) *ReEncrypted { return reEncrypted(item.GetDone()) })
}

// GenerateDataKeys makes n data keys of 1 to 1024 bytes under a key.
func (c *Client) GenerateDataKeys(ctx context.Context, n int, key string, bytes int, encryptionContext map[string]string) []Result[DataKey] {
	return c.dataKeys(ctx, c.crypto.GenerateDataKeyBatch, n, key, bytes, encryptionContext)
}

// GenerateDataKeysWithoutPlaintext makes n data keys for somebody else to open.
func (c *Client) GenerateDataKeysWithoutPlaintext(ctx context.Context, n int, key string, bytes int, encryptionContext map[string]string) []Result[DataKey] {
	return c.dataKeys(ctx, c.crypto.GenerateDataKeyWithoutPlaintextBatch, n, key, bytes, encryptionContext)
}

func (c *Client) dataKeys(ctx context.Context, generate method[*v1.GenerateDataKeyBatchRequest, *v1.GenerateDataKeyBatchResponse],
	n int, key string, bytes int, encryptionContext map[string]string,
) []Result[DataKey] {
	requests := make([]*v1.GenerateDataKeyRequest, max(n, 0))
	for i := range requests {
		requests[i] = &v1.GenerateDataKeyRequest{Key: key, Region: c.region, NumberOfBytes: uint32(max(bytes, 0)), EncryptionContext: encryptionContext}
	}
	return inBatches(requests, func(some []*v1.GenerateDataKeyRequest) ([]*v1.GenerateDataKeyBatchResponse_Item, error) {
		if err := checkDataKeySize(bytes); err != nil {
			return nil, err
		}
		answer, err := call(ctx, c, generate, &v1.GenerateDataKeyBatchRequest{Items: some})
		return answer.GetItems(), err
	}, func(item *v1.GenerateDataKeyBatchResponse_Item) *DataKey { return dataKey(item.GetDone()) })
}

// What fits into one request, by the daemon's limits (crypto.proto).
const (
	batchItems = 128
	batchBytes = 240 << 10 // of the items; the rest is for what surrounds them
)

// inBatches sends requests in as many calls as it takes. When a call fails, its
// items and all that follow fail with it.
func inBatches[Req proto.Message, Item interface {
	comparable
	GetFailed() *v1.Failure
}, T any](requests []Req, send func([]Req) ([]Item, error), value func(Item) *T) []Result[T] {
	results := make([]Result[T], 0, len(requests))
	for len(requests) > 0 {
		n := fitting(requests)
		answers, err := send(requests[:n])
		if err == nil && len(answers) != n {
			err = &Error{Code: codes.Internal, Reason: "BATCH_ANSWER", Message: "kmsbrokerd answered a batch with another number of items"}
		}
		if err != nil {
			for range requests {
				results = append(results, Result[T]{Err: err})
			}
			return results
		}
		for _, answer := range answers {
			if failed := answer.GetFailed(); failed != nil {
				results = append(results, Result[T]{Err: &Error{
					Code: codes.Code(failed.GetCode()), Reason: failed.GetReason(), Message: failed.GetMessage(),
					Hint: failed.GetHint(), RequestID: failed.GetRequestId(),
				}})
				continue
			}
			results = append(results, Result[T]{Value: value(answer)})
		}
		requests = requests[n:]
	}
	return results
}

// fitting is how many of the requests go into one call, at least one.
func fitting[Req proto.Message](requests []Req) int {
	size := 0
	for i, request := range requests {
		size += proto.Size(request) + 8 // its tag and length
		if i == batchItems || i > 0 && size > batchBytes {
			return i
		}
	}
	return len(requests)
}
