package client

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

type generator = method[*v1.GenerateDataKeyRequest, *v1.GenerateDataKeyResponse]

func (c *Client) dataKey(ctx context.Context, generate generator, key string, bytes int, encryptionContext map[string]string) (*DataKey, error) {
	if err := checkDataKeySize(bytes); err != nil {
		return nil, err
	}
	answer, err := call(ctx, c, generate, &v1.GenerateDataKeyRequest{Key: key, Region: c.region, NumberOfBytes: uint32(bytes), EncryptionContext: encryptionContext})
	if err != nil {
		return nil, err
	}
	return dataKey(answer), nil
}

func dataKey(answer *v1.GenerateDataKeyResponse) *DataKey {
	return &DataKey{Encrypted: *encrypted(answer), Plaintext: answer.GetPlaintext()}
}

func checkDataKeySize(bytes int) error {
	if bytes < 1 || bytes > 1024 {
		return &Error{
			Code: codes.InvalidArgument, Reason: "DATA_KEY_SIZE", Message: fmt.Sprintf("a data key has 1 to 1024 bytes, not %d", bytes),
		}
	}
	return nil
}
