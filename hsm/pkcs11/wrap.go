package pkcs11

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Wrap implements [hsm.Token].
func (t *Token) Wrap(ctx context.Context, req hsm.WrapRequest) ([]byte, error) {
	if !req.Algorithm.Valid() {
		return nil, hsm.Errorf(hsm.AlgorithmUnsupported, "wrapping algorithm %.40q is unknown", string(req.Algorithm))
	}
	if err := t.mayChange("import the wrapping key"); err != nil {
		return nil, err
	}
	public, err := parsePublicKey(req.PublicKey)
	if err != nil {
		return nil, err
	}
	var blob []byte
	err = t.pool.do(ctx, onKey(req.Key, func(s *session, object p11.ObjectHandle) (err error) {
		if err := s.checkExtractable(req.Key, object); err != nil {
			return err
		}
		blob, err = s.wrap(object, public, req.Algorithm)
		return err
	}))
	return blob, err
}

// parsePublicKey reads a DER SubjectPublicKeyInfo with an RSA key that a FIPS
// device would accept too.
func parsePublicKey(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key: %v", err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key is a %T, not RSA", parsed)
	}
	if bits := public.N.BitLen(); bits < 2048 || bits > 4096 {
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key has %d bits; allowed are 2048 to 4096", bits)
	}
	if public.E < 65537 || public.E%2 == 0 {
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key has the public exponent %d; it must be odd and at least 65537", public.E)
	}
	return public, nil
}

// wrap encrypts the value of object under public. The imported public key is
// removed again whatever happens.
func (s *session) wrap(object p11.ObjectHandle, public *rsa.PublicKey, algorithm hsm.WrappingAlgorithm) ([]byte, error) {
	wrapper, err := s.importPublicKey(public)
	if err != nil {
		return nil, err
	}
	defer s.discard(wrapper)

	blob, err := s.WrapKey(s.handle, []*p11.Mechanism{mechanism(algorithm)}, wrapper, object)
	if err != nil {
		return nil, wrapError(err, algorithm)
	}
	if len(blob) != public.Size() {
		return nil, hsm.Errorf(hsm.Corrupt, "the token wrapped with %s into %d bytes under a key of %d bytes", algorithm, len(blob), public.Size())
	}
	return blob, nil
}

// importPublicKey makes a session object of the wrapping key. A device that
// does not take CKA_WRAP at creation may allow to set it afterwards, which is
// how Thales' guide for Alibaba Cloud does it.
func (s *session) importPublicKey(public *rsa.PublicKey) (p11.ObjectHandle, error) {
	bare := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_RSA),
		p11.NewAttribute(p11.CKA_TOKEN, false),
		// Luna shows public keys as private objects unless told otherwise.
		p11.NewAttribute(p11.CKA_PRIVATE, false),
		p11.NewAttribute(p11.CKA_MODULUS, public.N.Bytes()),
		p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(public.E)).Bytes()),
	}
	minimal := append(slices.Clip(bare),
		p11.NewAttribute(p11.CKA_WRAP, true),
		p11.NewAttribute(p11.CKA_ENCRYPT, false),
		p11.NewAttribute(p11.CKA_VERIFY, false),
	)
	object, err := s.CreateObject(s.handle, minimal)
	if err == nil {
		return object, nil
	}
	if !hasCode(err, p11.CKR_ATTRIBUTE_READ_ONLY, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID,
		p11.CKR_TEMPLATE_INCOMPLETE, p11.CKR_TEMPLATE_INCONSISTENT) {
		return 0, deviceError(err, "import the wrapping key")
	}
	if object, err = s.CreateObject(s.handle, bare); err != nil {
		return 0, deviceError(err, "import the wrapping key")
	}
	if err := s.SetAttributeValue(s.handle, object, []*p11.Attribute{p11.NewAttribute(p11.CKA_WRAP, true)}); err != nil {
		s.discard(object)
		return 0, deviceError(err, "allow the imported wrapping key to wrap (on Luna this needs partition policy 11)")
	}
	return object, nil
}

// discard removes a session object. When that fails the session is closed after
// the call, and its objects vanish with it.
func (s *session) discard(object p11.ObjectHandle) {
	if err := s.destroy(object); err != nil {
		s.tainted = true
		s.logger.Warn("session object could not be removed, closing its session", "error", deviceError(err, "destroy a session object"))
	}
}

// mechanism spells out every OAEP parameter: devices differ in their defaults
// for MGF1, and SoftHSM takes an empty label only as a null pointer.
func mechanism(algorithm hsm.WrappingAlgorithm) *p11.Mechanism {
	switch algorithm {
	case hsm.OAEPSHA256:
		return p11.NewMechanism(p11.CKM_RSA_PKCS_OAEP,
			p11.NewOAEPParams(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, p11.CKZ_DATA_SPECIFIED, nil))
	case hsm.OAEPSHA1:
		return p11.NewMechanism(p11.CKM_RSA_PKCS_OAEP,
			p11.NewOAEPParams(p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, p11.CKZ_DATA_SPECIFIED, nil))
	default:
		return p11.NewMechanism(p11.CKM_RSA_PKCS, nil)
	}
}

// wrapError reads the answer of C_WrapKey. The arguments are ours and the same
// for every device, so one that calls them bad (SoftHSM does, for SHA-256) does
// not know the algorithm; and a length out of range is the modulus's.
func wrapError(err error, algorithm hsm.WrappingAlgorithm) error {
	e := deviceError(err, "wrap with %s", algorithm)
	if hasCode(err, p11.CKR_ARGUMENTS_BAD, p11.CKR_DATA_LEN_RANGE) {
		e.Reason = hsm.AlgorithmUnsupported
	}
	return e
}
