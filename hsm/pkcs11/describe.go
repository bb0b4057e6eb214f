package pkcs11

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // OAEP with SHA-1 is one of the algorithms to be tried
	"crypto/sha256"
	"errors"
	"slices"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Describe implements [hsm.Token]. The first call tries every wrapping
// algorithm; what it found is kept until the token is closed.
func (t *Token) Describe(ctx context.Context) (*hsm.Info, error) {
	select {
	case t.describing <- struct{}{}:
		defer func() { <-t.describing }()
	case <-ctx.Done():
		return nil, waitEnded(ctx, "the token to be described")
	}
	if t.info == nil {
		info, err := t.describe(ctx)
		if err != nil {
			return nil, err
		}
		t.info = info
	}
	info := *t.info
	info.WrappingAlgorithms = slices.Clone(info.WrappingAlgorithms)
	info.Policies = slices.Clone(info.Policies)
	return &info, nil
}

func (t *Token) describe(ctx context.Context) (*hsm.Info, error) {
	algorithms, err := t.probe(ctx)
	if err != nil {
		return nil, err
	}
	var details Details
	if t.inspect != nil {
		err = t.pool.do(ctx, func(*session) error {
			details = t.inspect(t.slot)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	token := t.slot.token
	return &hsm.Info{
		Manufacturer:       clean(token.ManufacturerID),
		Model:              clean(token.Model),
		Serial:             clean(token.SerialNumber),
		Label:              clean(token.Label),
		Firmware:           cmp.Or(clean(details.Firmware), version(token.FirmwareVersion)),
		Library:            clean(t.library),
		Role:               t.role,
		FIPS:               details.FIPS,
		Policies:           details.Policies,
		WrappingAlgorithms: algorithms,
		MaxSessions:        limit(token.MaxRwSessionCount),
	}, nil
}

// clean makes a field of CK_TOKEN_INFO safe to show; some libraries pad with
// zeros where the standard wants blanks.
func clean(field string) string {
	return printable([]byte(strings.TrimRight(field, " \x00")))
}

// probe finds the wrapping algorithms by wrapping a session key and opening the
// result in Go. Mechanism lists are not believed: Luna lists RSA PKCS#1 in FIPS
// mode and refuses to wrap with it, SoftHSM lists OAEP and means SHA-1.
func (t *Token) probe(ctx context.Context) ([]hsm.WrappingAlgorithm, error) {
	if t.mayChange("wrap") != nil {
		return nil, nil
	}
	private, err := probeKey()
	if err != nil {
		return nil, err
	}
	var works []hsm.WrappingAlgorithm
	for _, algorithm := range hsm.WrappingAlgorithms() {
		// Each in a turn of its own: other calls are waiting while this is done after
		// a restart, and some of them need the token for themselves.
		var unusable error
		err := t.pool.do(ctx, func(s *session) (err error) {
			unusable, err = s.tryOnNewKey(private, algorithm)
			return err
		})
		switch {
		case errors.Is(err, hsm.NotPermitted):
			t.logger.Warn("wrapping cannot be tried: this role may not generate keys", "error", err)
			return nil, nil
		case err != nil:
			return nil, err
		case unusable != nil:
			t.logger.Info("wrapping algorithm is not usable", "algorithm", string(algorithm), "error", unusable)
		default:
			works = append(works, algorithm)
		}
	}
	return works, nil
}

// tryOnNewKey tries an algorithm on a session key that is there for nothing else.
// err says that it could not be tried.
func (s *session) tryOnNewKey(private *rsa.PrivateKey, algorithm hsm.WrappingAlgorithm) (unusable, err error) {
	mechanism := []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}
	object, err := s.GenerateKey(s.handle, mechanism, aesTemplate(false))
	if err != nil {
		return nil, deviceError(err, "generate a session key to try the wrapping algorithms with")
	}
	defer s.discard(object)
	unusable = s.try(object, private, algorithm)
	if errors.Is(unusable, hsm.Internal) {
		// A code that nobody understands may be a passing fault, and what is found
		// here counts for as long as the token is open.
		unusable = s.try(object, private, algorithm)
	}
	if unusable != nil && !conclusive(unusable) {
		return nil, unusable
	}
	return unusable, nil
}

// conclusive reports whether err says that the algorithm does not work, rather
// than that the token is in trouble.
func conclusive(err error) bool {
	switch hsm.ReasonOf(err) {
	case hsm.TokenGone, hsm.Busy, hsm.Timeout, hsm.StorageFull:
		return false
	default:
		return true
	}
}

// try wraps object under private's public half, opens the result and compares
// check values.
func (s *session) try(object p11.ObjectHandle, private *rsa.PrivateKey, algorithm hsm.WrappingAlgorithm) error {
	blob, err := s.wrap(object, &private.PublicKey, algorithm)
	if err != nil {
		return err
	}
	value, err := unwrap(private, blob, algorithm)
	if err != nil {
		return hsm.Errorf(hsm.Corrupt, "what the token wrapped with %s does not open", algorithm)
	}
	defer clear(value)
	want, err := s.checkValue(object)
	if err != nil {
		return err
	}
	if got, ok := checkValueOf(value); !ok || got != want {
		return hsm.Errorf(hsm.Corrupt, "what the token wrapped with %s is not the key", algorithm)
	}
	return nil
}

func unwrap(private *rsa.PrivateKey, blob []byte, algorithm hsm.WrappingAlgorithm) ([]byte, error) {
	switch algorithm {
	case hsm.OAEPSHA256:
		return rsa.DecryptOAEP(sha256.New(), nil, private, blob, nil)
	case hsm.OAEPSHA1:
		return rsa.DecryptOAEP(sha1.New(), nil, private, blob, nil) //nolint:gosec // see the import
	default:
		return rsa.DecryptPKCS1v15(nil, private, blob) //nolint:staticcheck // nobody can ask for a second decryption
	}
}

func checkValueOf(key []byte) (hsm.CheckValue, bool) {
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != aes256Bytes {
		return hsm.CheckValue{}, false
	}
	out := make([]byte, aes.BlockSize)
	block.Encrypt(out, out)
	return hsm.CheckValue(out[:3]), true
}
