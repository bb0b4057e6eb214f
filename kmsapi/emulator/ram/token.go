package ram

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// token is what a security token holds: everything about the session, sealed
// under a key of the account, so that nothing has to be remembered or swept up.
type token struct {
	AccessKeyID string
	Secret      string
	RoleID      string // a role of the same name made later is another one
	RoleName    string
	Session     string
	Policy      string // of the session, "" for none
	Expires     time.Time
}

// temporaryPrefix begins the AccessKey IDs of STS.
const temporaryPrefix = "STS."

func isTemporary(accessKeyID string) bool { return strings.HasPrefix(accessKeyID, temporaryPrefix) }

func newTokenSeal(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("key for tokens: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (a *Account) sealToken(t token) (string, error) {
	data, err := json.Marshal(t) //nolint:gosec // sealed before it goes anywhere
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	return base64.StdEncoding.EncodeToString(a.tokens.Seal(nil, nil, data, nil)), nil //nolint:gosec // the AEAD makes its own nonce
}

// openToken opens a security token and checks that it belongs to the AccessKey
// and is good.
func (a *Account) openToken(accessKeyID, text string) (token, error) {
	if !isTemporary(accessKeyID) {
		return token{}, wire.ErrTokenMismatch
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return token{}, wire.ErrMalformedToken
	}
	data, err := a.tokens.Open(nil, nil, raw, nil)
	if err != nil {
		return token{}, wire.ErrMalformedToken
	}
	var t token
	switch err := json.Unmarshal(data, &t); {
	case err != nil:
		return token{}, wire.ErrMalformedToken
	case t.AccessKeyID != accessKeyID:
		return token{}, wire.ErrTokenMismatch
	case !a.cfg.Now().Before(t.Expires):
		return token{}, wire.ErrExpiredToken
	}
	return t, nil
}

// sessionIdentity is who holds a good token. A role that was deleted takes its
// sessions with it.
func (a *Account) sessionIdentity(s *state, t token) (Identity, error) {
	r, ok := s.Roles[t.RoleName]
	if !ok || r.RoleID != t.RoleID {
		return Identity{}, wire.ErrUnknownAccessKey
	}
	id := Identity{
		ARN: a.arn("assumed-role/" + t.RoleName + "/" + t.Session), id: t.RoleID + ":" + t.Session, role: t.RoleName,
		names: []string{a.arn("role/" + t.RoleName)}, documents: s.attached(r.Attached), accessKeyID: t.AccessKeyID,
	}
	if t.Policy == "" {
		return id, nil
	}
	document, err := policy.Parse(t.Policy, policy.Identity)
	if err != nil {
		return Identity{}, fmt.Errorf("session policy: %w", err)
	}
	id.session = &document
	return id, nil
}

// newSecret is an AccessKey secret: 30 characters, some 150 bits.
func newSecret() string { return rand.Text() + rand.Text()[:4] }

// newNumber is an ID of 18 digits, as users and roles have.
func newNumber() string {
	raw := make([]byte, 8)
	rand.Read(raw) // never fails (crypto/rand since Go 1.24)
	return fmt.Sprintf("2%017d", binary.BigEndian.Uint64(raw)%1e17)
}
