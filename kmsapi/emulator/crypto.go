package emulator

import (
	"crypto/rand"
	"encoding/base64"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const maxPlaintext = 6144 // bytes

func encrypt(c *call) (any, error) {
	data, err := c.params.Binary("Plaintext")
	if err != nil {
		return nil, err
	}
	if len(data) > maxPlaintext {
		return nil, wire.InvalidParameter("Plaintext")
	}
	return c.encryptUnder("KeyId", idOrAlias, data, "EncryptionContext")
}

// encryptUnder encrypts under the key and in the context that two parameters
// name.
func (c *call) encryptUnder(param string, by naming, data []byte, contextParam string) (wire.Ciphertext, error) {
	context, err := c.params.Context(contextParam)
	if err != nil {
		return wire.Ciphertext{}, err
	}
	k, err := c.key(param, by)
	if err != nil {
		return wire.Ciphertext{}, err
	}
	return wire.Ciphertext{KeyID: k.ID, KeyVersionID: k.Version, CiphertextBlob: k.seal(data, context)}, nil
}

func decrypt(c *call) (any, error) {
	if c.params["Recipient"] != "" {
		return nil, wire.ErrUnsupported
	}
	k, version, data, err := c.decryptBlob("EncryptionContext")
	if err != nil {
		return nil, err
	}
	return wire.Plaintext{KeyID: k.ID, KeyVersionID: version, Plaintext: base64.StdEncoding.EncodeToString(data)}, nil
}

// decryptBlob opens CiphertextBlob in the context that a parameter names. What
// is wrong with a blob that does not open is not told: a damaged blob, one of a
// deleted or a foreign key and a wrong context look the same.
func (c *call) decryptBlob(contextParam string) (k *key, version string, data []byte, err error) {
	invalid := wire.InvalidParameter("CiphertextBlob")
	context, err := c.params.Context(contextParam)
	if err != nil {
		return nil, "", nil, err
	}
	version, sealed, err := splitBlob(c.params["CiphertextBlob"])
	if err != nil {
		return nil, "", nil, invalid
	}
	k, ok := c.region.keyOfVersion(version)
	if !ok || !c.sees(k) {
		return nil, "", nil, invalid
	}
	if err := c.permitKey(k); err != nil {
		return nil, "", nil, err
	}
	if err := c.reach(k); err != nil {
		return nil, "", nil, err
	}
	if err := c.op.states.check(k.State); err != nil {
		return nil, "", nil, err
	}
	data, err = k.open(version, sealed, context)
	if err != nil {
		return nil, "", nil, invalid
	}
	return k, version, data, nil
}

// reEncrypt works on ciphertexts of symmetric keys. The parameters that describe
// a public key's ciphertext are for keys that there are none of here.
func reEncrypt(c *call) (any, error) {
	for _, name := range []string{"SourceKeyId", "SourceKeyVersionId", "SourceEncryptionAlgorithm"} {
		if c.params[name] != "" {
			return nil, wire.ErrUnsupported
		}
	}
	c.permission = "ReEncryptFrom"
	_, _, data, err := c.decryptBlob("SourceEncryptionContext")
	if err != nil {
		return nil, err
	}
	c.permission = "ReEncryptTo"
	return c.encryptUnder("DestinationKeyId", idOnly, data, "DestinationEncryptionContext")
}

func generateDataKey(c *call) (any, error) {
	if c.params["Recipient"] != "" {
		return nil, wire.ErrUnsupported
	}
	data, sealed, err := c.dataKey()
	if err != nil {
		return nil, err
	}
	return wire.DataKey{Ciphertext: sealed, Plaintext: base64.StdEncoding.EncodeToString(data)}, nil
}

func generateDataKeyWithoutPlaintext(c *call) (any, error) {
	_, sealed, err := c.dataKey()
	if err != nil {
		return nil, err
	}
	return sealed, nil
}

// dataKey makes a data key of the size that is asked for.
func (c *call) dataKey() ([]byte, wire.Ciphertext, error) {
	size, err := c.params.DataKeySize()
	if err != nil {
		return nil, wire.Ciphertext{}, err
	}
	data := make([]byte, size)
	rand.Read(data) // never fails (crypto/rand since Go 1.24)
	sealed, err := c.encryptUnder("KeyId", idOrAlias, data, "EncryptionContext")
	return data, sealed, err
}
