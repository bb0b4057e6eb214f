package hsm

import "context"

// TokenInitializer makes tokens. Only backends for development have it: a
// partition of a real HSM is made by its security officers, with the vendor's
// tool and on record.
type TokenInitializer interface {
	// InitToken makes a new token and gives its Crypto Officer a PIN, and
	// returns the token's serial. It never touches a token that exists.
	//
	// AlreadyExists: a token of that label is there. NotPermitted: this
	// backend's tokens are made with the vendor's tool.
	InitToken(ctx context.Context, spec TokenSpec) (serial string, err error)
}

// TokenSpec says which token InitToken shall make.
type TokenSpec struct {
	// Settings of the backend, as for opening a token; those that select a
	// token are not looked at.
	Settings map[string]string
	Label    string // 1 to 32 bytes of printable ASCII
	// SOPIN will belong to the security officer and PIN to the Crypto Officer.
	// The caller wipes them.
	SOPIN, PIN []byte
}
