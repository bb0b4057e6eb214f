package hsm

import (
	"bytes"
	"context"
	"fmt"
)

// TokenID tells a token from all others, by what the device says of it before
// anybody logs in (PKCS#11 2.40, CK_TOKEN_INFO). Strings are printable UTF-8 of
// at most 255 bytes.
type TokenID struct {
	Manufacturer string
	Model        string
	// Serial is never empty: a token without a serial has here what else tells it
	// from the others of its maker, such as its label.
	Serial string
}

// String names the token for people.
func (t TokenID) String() string {
	return fmt.Sprintf("%s %s, serial %s", t.Manufacturer, t.Model, t.Serial)
}

// PINSource hands out the PIN of a role on a token. It is asked once for each
// Open, at the moment in which the login is about to be attempted and not before:
// whoever counts attempts writes this one down first, under the token, because
// it is the token that counts wrong PINs. An error forbids the login, and is what
// Open returns. The one who asks wipes the answer.
type PINSource func(ctx context.Context, token TokenID) ([]byte, error)

// PIN returns a source of a PIN that is known already, for any token.
func PIN(pin []byte) PINSource {
	return func(context.Context, TokenID) ([]byte, error) { return bytes.Clone(pin), nil }
}
