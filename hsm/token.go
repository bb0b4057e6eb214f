// Package hsm is the wrap interface: what kmsbroker asks of a hardware
// security module, in the words of the field and without a PKCS#11 type in
// sight.
//
// A backend implements [Token]. The implementations run in plugin processes
// (package hsm/plugin carries the interface over gRPC), and three of them share
// one PKCS#11 engine (package hsm/pkcs11). Whoever calls a Token may be far from
// the device, so every method takes a context and every failure is an [*Error]
// whose [Reason] says what the caller can do about it.
package hsm

import "context"

// Token is one HSM token (a Luna partition, a DPoD service, a SoftHSM token)
// that is open and logged in.
//
// All methods may be called concurrently. A context that ends makes the call
// return early where the device allows it; a call that is already inside a
// vendor library cannot be interrupted, and its outcome is then unknown.
//
// Implementations answer with errors that are [*Error], or that wrap the error of
// a context that was cancelled. They never put a PIN or key material in one.
type Token interface {
	// Describe says what the token is and what it can really do. Capabilities
	// are found by trying them on short-lived session objects, so the first
	// call may take seconds on a slow device; later ones answer from memory.
	Describe(ctx context.Context) (*Info, error)

	// GenerateKey generates an AES-256 key inside the token under spec.ID,
	// which the caller chose at random before its first attempt. A repeat with
	// the same ID returns the key of the first attempt instead of generating a
	// second one, so the call may be repeated after an unknown outcome.
	// AlreadyExists: the ID belongs to an object that is not such a key, which a
	// key that was sealed since no longer is.
	GenerateKey(ctx context.Context, spec KeySpec) (*Key, error)

	// Keys lists the secret keys of the token that this role can see, also
	// those that others made, ordered by ID.
	Keys(ctx context.Context) ([]Key, error)

	// Key reads one key by its ID. NotFound: there is none.
	Key(ctx context.Context, id KeyID) (*Key, error)

	// CheckValue computes the key's check value inside the token.
	CheckValue(ctx context.Context, id KeyID) (CheckValue, error)

	// Wrap encrypts the value of a key under an RSA public key, inside the
	// token. The public key is imported for the call and removed again.
	// NotExportable: the key may not leave the token. AlgorithmUnsupported: the
	// token cannot wrap this way.
	//
	// A key whose CKA_EXTRACTABLE is false is refused before it is wrapped, because
	// there are devices that do not look (NSS is one).
	Wrap(ctx context.Context, req WrapRequest) ([]byte, error)

	// SealKey keeps a key in the token for ever: it sets CKA_EXTRACTABLE to false,
	// which can never become true again (PKCS#11 2.40, secret key attributes), and
	// returns the key as the token then describes it. From then on Wrap answers
	// NotExportable; what was wrapped before is not called back. Everything else
	// about the key stays as it was, and it can be destroyed. A key that is sealed
	// already is returned as it is, so the call may be repeated.
	//
	// NotFound: there is no such key. NotPermitted: the role, the partition's
	// policy or the key's CKA_MODIFIABLE does not let attributes be changed; the
	// key is as it was. Corrupt: the token accepted the change and still calls the
	// key extractable.
	SealKey(ctx context.Context, id KeyID) (*Key, error)

	// DestroyKey removes a key for ever. NotFound: there is none, which after
	// an unknown outcome means that the first attempt worked.
	DestroyKey(ctx context.Context, id KeyID) error

	// Health proves that the token answers with the login in place. It is
	// cheap enough to be called every few seconds.
	Health(ctx context.Context) error

	// Close logs out and releases the device. Calls in flight are waited for
	// within ctx. The Token cannot be used afterwards.
	Close(ctx context.Context) error
}

// KeySpec says which key GenerateKey shall make. The key is always AES-256,
// stored on the token, private, sensitive and extractable under a wrapping key;
// it can encrypt (so that a check value can be computed on devices that do not
// keep one) and nothing else.
type KeySpec struct {
	ID    KeyID
	Label string // CKA_LABEL, for people; 1 to 64 bytes of printable ASCII
}

// WrapRequest names what is wrapped and for whom.
type WrapRequest struct {
	Key       KeyID
	Algorithm WrappingAlgorithm
	// PublicKey is the RSA wrapping key as DER SubjectPublicKeyInfo (RFC 5280).
	PublicKey []byte
}
