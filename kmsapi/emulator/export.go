package emulator

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // RSAES_OAEP_SHA_1 is part of the API
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"hash"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// exportKey is the public key under which a data key is to leave.
type exportKey struct {
	public *rsa.PublicKey
	hash   func() hash.Hash // of OAEP, label and mask
}

// exportKey reads PublicKeyBlob, WrappingKeySpec and WrappingAlgorithm.
func (c *call) exportKey() (*exportKey, error) {
	spec, err := c.params.OneOf("WrappingKeySpec", wrappingSpec, "EC_SM2")
	if err != nil {
		return nil, err
	}
	algorithm, err := c.params.OneOf("WrappingAlgorithm", wrapOAEPSHA256, wrapOAEPSHA1, "SM2PKE")
	if err != nil {
		return nil, err
	}
	if spec != wrappingSpec || algorithm == "SM2PKE" {
		return nil, wire.ErrUnsupported
	}
	der, err := c.params.Binary("PublicKeyBlob")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	public, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok || public.N.BitLen() != wrappingBits {
		return nil, wire.InvalidParameter("PublicKeyBlob")
	}
	if algorithm == wrapOAEPSHA1 {
		return &exportKey{public, sha1.New}, nil
	}
	return &exportKey{public, sha256.New}, nil
}

// wrap encrypts a data key. One that does not fit is the caller's mistake.
func (e *exportKey) wrap(data []byte, param string) (string, error) {
	wrapped, err := rsa.EncryptOAEP(e.hash(), rand.Reader, e.public, data, nil)
	if err != nil {
		return "", wire.InvalidParameter(param)
	}
	return base64.StdEncoding.EncodeToString(wrapped), nil
}

func exportDataKey(c *call) (any, error) {
	to, err := c.exportKey()
	if err != nil {
		return nil, err
	}
	k, version, data, err := c.decryptBlob("EncryptionContext")
	if err != nil {
		return nil, err
	}
	wrapped, err := to.wrap(data, "CiphertextBlob")
	if err != nil {
		return nil, err
	}
	return struct {
		KeyID           string `json:"KeyId"`
		KeyVersionID    string `json:"KeyVersionId"`
		ExportedDataKey string
	}{k.ID, version, wrapped}, nil
}

func generateAndExportDataKey(c *call) (any, error) {
	to, err := c.exportKey()
	if err != nil {
		return nil, err
	}
	data, sealed, err := c.dataKey()
	if err != nil {
		return nil, err
	}
	wrapped, err := to.wrap(data, "NumberOfBytes")
	if err != nil {
		return nil, err
	}
	return struct {
		wire.Ciphertext
		ExportedDataKey string
	}{sealed, wrapped}, nil
}
