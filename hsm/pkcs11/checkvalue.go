package pkcs11

import (
	"context"
	"crypto/aes"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// CheckValue implements [hsm.Token].
func (t *Token) CheckValue(ctx context.Context, id hsm.KeyID) (hsm.CheckValue, error) {
	var value hsm.CheckValue
	err := t.pool.do(ctx, onKey(id, func(s *session, object p11.ObjectHandle) (err error) {
		value, err = s.checkValue(object)
		return err
	}))
	return value, err
}

// checkValue reads the value that the token keeps, and computes it inside the
// token when it keeps none.
func (s *session) checkValue(object p11.ObjectHandle) (hsm.CheckValue, error) {
	kept, err := s.attributes(object, []uint{p11.CKA_CHECK_VALUE})
	if err != nil {
		return hsm.CheckValue{}, err
	}
	if raw := kept[p11.CKA_CHECK_VALUE]; len(raw) == len(hsm.CheckValue{}) {
		return hsm.CheckValue(raw), nil
	}
	if err := s.EncryptInit(s.handle, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_ECB, nil)}, object); err != nil {
		return hsm.CheckValue{}, deviceError(err, "start to compute a check value")
	}
	block, err := s.Encrypt(s.handle, make([]byte, aes.BlockSize))
	if err != nil {
		return hsm.CheckValue{}, deviceError(err, "compute a check value")
	}
	if len(block) != aes.BlockSize {
		return hsm.CheckValue{}, hsm.Errorf(hsm.Corrupt, "the token encrypted one AES block into %d bytes", len(block))
	}
	return hsm.CheckValue(block[:3]), nil
}
