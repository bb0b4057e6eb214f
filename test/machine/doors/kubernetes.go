//go:build root

package main

import (
	"context"

	v2 "k8s.io/kms/apis/v2"

	"github.com/kmsbroker/kmsbroker/client"
)

// provider is kubernetes/KEY.sock.
type provider struct{ v2.KeyManagementServiceClient }

// seed is what kube-apiserver keeps.
type seed struct {
	Ciphertext  []byte
	KeyID       string
	Annotations map[string][]byte
}

func newProvider(key string) (provider, error) {
	conn, err := client.Dial("/run/kmsbroker/kubernetes/" + key + ".sock")
	if err != nil {
		return provider{}, err
	}
	return provider{v2.NewKeyManagementServiceClient(conn)}, nil
}

const kubernetes = "kubernetes"

func (p provider) ways(op string) []way {
	return map[string][]way{
		"encrypt": {{kubernetes, "Encrypt", func(ctx context.Context, _ *task) error {
			_, err := p.encrypt(ctx)
			return err
		}}},
		"decrypt": {{kubernetes, "Decrypt", func(ctx context.Context, t *task) error { return p.decrypt(ctx, t.Sealed.Seed) }}},
		"steal": {
			{kubernetes, "Decrypt a data key", p.stealing(func(s *sealed) string { return s.DataKey })},
			{kubernetes, "Decrypt a blob", p.stealing(func(s *sealed) string { return s.Blob })},
		},
	}[op]
}

func (p provider) encrypt(ctx context.Context) (*seed, error) {
	answer, err := p.Encrypt(ctx, &v2.EncryptRequest{Plaintext: plaintext, Uid: "uid"})
	if err != nil {
		return nil, err
	}
	return &seed{answer.GetCiphertext(), answer.GetKeyId(), answer.GetAnnotations()}, nil
}

func (p provider) decrypt(ctx context.Context, s *seed) error {
	answer, err := p.Decrypt(ctx, &v2.DecryptRequest{Ciphertext: s.Ciphertext, KeyId: s.KeyID, Annotations: s.Annotations, Uid: "uid"})
	return same(answer.GetPlaintext(), err)
}

func (p provider) stealing(blob func(*sealed) string) func(context.Context, *task) error {
	return func(ctx context.Context, t *task) error {
		stolen := *t.Sealed.Seed
		stolen.Ciphertext = []byte(blob(&t.Sealed))
		return p.decrypt(ctx, &stolen)
	}
}
