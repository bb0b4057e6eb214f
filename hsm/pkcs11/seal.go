package pkcs11

import (
	"context"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// SealKey implements [hsm.Token]. It has the library for itself, so that no wrap
// which began before is still under way when it returns.
func (t *Token) SealKey(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	if err := t.mayChange("seal keys"); err != nil {
		return nil, err
	}
	var key *hsm.Key
	err := t.pool.patiently(ctx, func() error {
		return t.pool.alone(ctx, onKey(id, func(s *session, object p11.ObjectHandle) (err error) {
			key, err = t.seal(s, id, object)
			return err
		}))
	})
	return key, err
}

func (t *Token) seal(s *session, id hsm.KeyID, object p11.ObjectHandle) (*hsm.Key, error) {
	extractable, err := s.extractable(id, object)
	if err != nil {
		return nil, err
	}
	if extractable {
		never := []*p11.Attribute{p11.NewAttribute(p11.CKA_EXTRACTABLE, false)}
		if err := s.SetAttributeValue(s.handle, object, never); err != nil {
			return nil, sealError(err, id)
		}
	}
	key, err := t.readKey(s, object)
	if err != nil {
		// Whoever repeats the call finds the key sealed or not.
		return nil, err
	}
	if key.Extractable {
		return nil, hsm.Errorf(hsm.Corrupt, "the token accepted that key %s be sealed, and still calls it extractable", id)
	}
	if extractable {
		t.logger.Info("HSM key sealed", "id", string(id))
	}
	return key, nil
}

// sealError reads the answer of C_SetAttributeValue. What was asked is right for
// every secret key, so a device that calls it wrong, or does not have the call,
// does not let keys be sealed.
func sealError(err error, id hsm.KeyID) error {
	e := deviceError(err, "seal key %s by setting CKA_EXTRACTABLE to false (on Luna this needs partition policy 11)", id)
	if hasCode(err, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_TEMPLATE_INCONSISTENT,
		p11.CKR_FUNCTION_NOT_SUPPORTED) {
		e.Reason = hsm.NotPermitted
	}
	return e
}

// checkExtractable refuses a key that may not leave. The device would have to do
// so itself, but NSS exports such keys.
func (s *session) checkExtractable(id hsm.KeyID, object p11.ObjectHandle) error {
	extractable, err := s.extractable(id, object)
	if err == nil && !extractable {
		err = hsm.Errorf(hsm.NotExportable, "key %s may not leave the token: its CKA_EXTRACTABLE is false", id)
	}
	return err
}

// extractable reports whether the key may leave the token under a wrapping key.
// Nothing is assumed of a device that does not say. The ID is read along with it,
// because a seal on another object could not be undone.
func (s *session) extractable(id hsm.KeyID, object p11.ObjectHandle) (bool, error) {
	a, err := s.attributes(object, []uint{p11.CKA_ID, p11.CKA_EXTRACTABLE})
	if err != nil {
		return false, err
	}
	if keyID(a[p11.CKA_ID]) != id {
		return false, errReused()
	}
	value := a[p11.CKA_EXTRACTABLE]
	if len(value) != 1 {
		return false, hsm.Errorf(hsm.Corrupt, "the token does not say whether key %s is extractable", id)
	}
	return value[0] != 0, nil
}
