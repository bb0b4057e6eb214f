package emulator

import (
	"crypto/subtle"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// externalKey finds the key of one of the import operations, which work on
// Origin=EXTERNAL alone.
func (c *call) externalKey() (*key, error) {
	k, err := c.find("KeyId", idOnly)
	if err != nil {
		return nil, err
	}
	if k.Origin != originExternal {
		return nil, errOrigin
	}
	return k, c.op.states.check(k.State)
}

type importParameters struct {
	KeyID           string `json:"KeyId"`
	ImportToken     string
	PublicKey       string
	TokenExpireTime string
}

func getParametersForImport(c *call) (any, error) {
	algorithm, err := c.params.OneOf("WrappingAlgorithm", wrapOAEPSHA256, wrapOAEPSHA1, wrapPKCS1v15)
	if err != nil {
		return nil, err
	}
	if _, err := c.params.OneOf("WrappingKeySpec", wrappingSpec); err != nil {
		return nil, err
	}
	k, err := c.externalKey()
	if err != nil {
		return nil, err
	}
	// "KMS instances do not support RSAES_OAEP_SHA_1" (GetParametersForImport).
	if k.Instance != "" && algorithm == wrapOAEPSHA1 {
		return nil, wire.InvalidParameter("WrappingAlgorithm")
	}
	text, token, err := newImportToken(k.ID, algorithm, c.now)
	if err != nil {
		return nil, err
	}
	publicKey, err := token.publicKey()
	if err != nil {
		return nil, err
	}
	if err := c.region.commit(batch{tokens: map[string]*importToken{text: token}}); err != nil {
		return nil, err
	}
	return importParameters{k.ID, text, publicKey, wire.Time(token.ExpiresAt)}, nil
}

func importKeyMaterial(c *call) (any, error) {
	k, err := c.externalKey()
	if err != nil {
		return nil, err
	}
	expiresAt, err := c.materialExpiry()
	if err != nil {
		return nil, err
	}
	wrapped, err := c.params.Binary("EncryptedKeyMaterial")
	if err != nil {
		return nil, err
	}
	token, ok := c.region.token(c.params["ImportToken"])
	switch {
	case !ok || token.KeyID != k.ID:
		return nil, errImportToken
	case token.private == nil:
		return nil, errImportTokenExpired
	}
	material, err := token.unwrap(wrapped)
	if err != nil {
		return nil, err
	}
	k = k.clone()
	fingerprint := k.fingerprint(material)
	if k.Fingerprint != nil && subtle.ConstantTimeCompare(k.Fingerprint, fingerprint) == 0 {
		return nil, errKeyMaterial
	}
	k.Fingerprint = fingerprint
	k.Imports++
	if err := k.setMaterial(material, expiresAt); err != nil {
		return nil, err
	}
	if k.Version == "" {
		k.Version, k.VersionCreatedAt = uuid.NewString(), c.now
	}
	if k.State == pendingImport {
		k.State = enabled
	}
	return nil, c.region.commit(putKey(k))
}

// lastExpiry bounds KeyMaterialExpireUnix: the API writes years with four
// digits. It also catches times in milliseconds.
var lastExpiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// materialExpiry reads KeyMaterialExpireUnix, seconds since 1970; absent and 0
// mean never.
func (c *call) materialExpiry() (time.Time, error) {
	const name = "KeyMaterialExpireUnix"
	text := c.params[name]
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds <= c.now.Unix() || seconds > lastExpiry.Unix() {
		return time.Time{}, wire.InvalidParameter(name)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func deleteKeyMaterial(c *call) (any, error) {
	k, err := c.externalKey()
	if err != nil {
		return nil, err
	}
	k = k.clone()
	k.dropMaterial()
	return nil, c.region.commit(putKey(k))
}
