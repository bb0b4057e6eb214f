package client

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

type generate func(context.Context, *v1.GenerateDataKeyRequest, ...grpc.CallOption) (*v1.GenerateDataKeyResponse, error)

func (c *Client) dataKey(ctx context.Context, call generate, key string, bytes int, encryptionContext map[string]string) (*DataKey, error) {
	if bytes < 1 || bytes > 1024 {
		return nil, &Error{
			Code: codes.InvalidArgument, Reason: "DATA_KEY_SIZE", Message: fmt.Sprintf("a data key has 1 to 1024 bytes, not %d", bytes),
		}
	}
	answer, err := call(ctx, &v1.GenerateDataKeyRequest{Key: key, Region: c.region, NumberOfBytes: uint32(bytes), EncryptionContext: encryptionContext})
	if err != nil {
		return nil, c.conn.Error(err)
	}
	return &DataKey{
		Encrypted: Encrypted{
			Key: answer.GetKey(), KeyID: answer.GetKeyId(), CiphertextBlob: answer.GetCiphertextBlob(), RequestID: answer.GetRequestId(),
		},
		Plaintext: answer.GetPlaintext(),
	}, nil
}
