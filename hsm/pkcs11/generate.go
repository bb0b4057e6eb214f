package pkcs11

import (
	"context"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

const aes256Bytes = 32

// GenerateKey implements [hsm.Token].
func (t *Token) GenerateKey(ctx context.Context, spec hsm.KeySpec) (*hsm.Key, error) {
	if _, err := hsm.ParseKeyID(string(spec.ID)); err != nil {
		return nil, err
	}
	if err := checkText("key label", spec.Label, 64); err != nil {
		return nil, err
	}
	if err := t.mayChange("generate keys"); err != nil {
		return nil, err
	}
	var key *hsm.Key
	err := t.pool.patiently(ctx, func() error {
		return t.pool.alone(ctx, func(s *session) (err error) {
			key, err = t.findOrGenerate(s, spec)
			return err
		})
	})
	return key, err
}

func checkText(what, label string, longest int) error {
	if label == "" || len(label) > longest {
		return hsm.Errorf(hsm.Invalid, "%s of %d bytes: allowed are 1 to %d", what, len(label), longest)
	}
	for _, b := range []byte(label) {
		if b < ' ' || b > '~' {
			return hsm.Errorf(hsm.Invalid, "%s %q: only printable ASCII is allowed", what, label)
		}
	}
	return nil
}

// findOrGenerate searches before it generates, because the answer of an earlier
// attempt may have been lost after the key was made.
func (t *Token) findOrGenerate(s *session, spec hsm.KeySpec) (*hsm.Key, error) {
	found, err := s.find(
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_ID, spec.ID.Bytes()),
	)
	if err != nil {
		return nil, err
	}
	switch len(found) {
	case 0:
		// A key that is only invisible must not get a twin.
		if err := s.checkLogin(); err != nil {
			return nil, err
		}
		return t.generate(s, spec)
	case 1:
		return t.existing(s, spec.ID, found[0])
	default:
		return nil, hsm.Errorf(hsm.Corrupt, "the token has %d objects with id %s", len(found), spec.ID)
	}
}

// existing accepts an object as the key of an earlier attempt.
func (t *Token) existing(s *session, id hsm.KeyID, object p11.ObjectHandle) (*hsm.Key, error) {
	a, err := s.attributes(object, []uint{p11.CKA_CLASS})
	if err != nil {
		return nil, err
	}
	if class, ok := ulong(a[p11.CKA_CLASS]); !ok || class != p11.CKO_SECRET_KEY {
		return nil, hsm.Errorf(hsm.AlreadyExists, "id %s belongs to an object that is not a secret key", id)
	}
	key, err := t.readKey(s, object)
	if err != nil {
		return nil, err
	}
	if wrong := differences(key); len(wrong) > 0 {
		return nil, hsm.Errorf(hsm.AlreadyExists, "id %s belongs to another key: %s", id, strings.Join(wrong, ", "))
	}
	return key, nil
}

func (t *Token) generate(s *session, spec hsm.KeySpec) (*hsm.Key, error) {
	template := append(aesTemplate(true),
		p11.NewAttribute(p11.CKA_ID, spec.ID.Bytes()),
		p11.NewAttribute(p11.CKA_LABEL, spec.Label),
	)
	mechanism := []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}
	object, err := s.GenerateKey(s.handle, mechanism, template)
	if err != nil {
		return nil, deviceError(err, "generate an AES-256 key under id %s", spec.ID)
	}
	key, err := t.readKey(s, object)
	if err != nil {
		// Whoever repeats the call finds the key and judges it then.
		return nil, err
	}
	wrong := differences(key)
	if key.ID != spec.ID {
		wrong = append(wrong, "CKA_ID is another one")
	}
	if len(wrong) == 0 {
		s.logger.Info("HSM key generated", "id", string(spec.ID), "label", spec.Label)
		return key, nil
	}
	if err := s.destroy(object); err != nil {
		s.logger.Error("unusable key could not be removed from the token", "id", string(spec.ID), "error", deviceError(err, "destroy the key"))
	}
	return nil, hsm.Errorf(hsm.NotPermitted,
		"the token made a key that differs from what was asked, so it was removed again: %s; check the partition's policies", strings.Join(wrong, ", "))
}

// aesTemplate asks for an AES-256 key that can leave the token only encrypted.
// CKA_ENCRYPT is there for the check value and nothing else is allowed: a key
// that can wrap or decrypt would be a second way to use or extract the material.
func aesTemplate(token bool) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_VALUE_LEN, aes256Bytes),
		p11.NewAttribute(p11.CKA_TOKEN, token),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, true),
		p11.NewAttribute(p11.CKA_MODIFIABLE, true),
		p11.NewAttribute(p11.CKA_ENCRYPT, true),
		p11.NewAttribute(p11.CKA_DECRYPT, false),
		p11.NewAttribute(p11.CKA_WRAP, false),
		p11.NewAttribute(p11.CKA_UNWRAP, false),
		p11.NewAttribute(p11.CKA_SIGN, false),
		p11.NewAttribute(p11.CKA_VERIFY, false),
		p11.NewAttribute(p11.CKA_DERIVE, false),
	}
}

// differences says in what a key is not the one that aesTemplate asks for.
// CKA_MODIFIABLE is left out: some partitions fix it, and only SealKey needs it,
// which then says so.
func differences(key *hsm.Key) []string {
	var wrong []string
	if key.Type != "AES" || key.Bits != aes256Bytes*8 {
		wrong = append(wrong, fmt.Sprintf("it is %s-%d, not AES-256", key.Type, key.Bits))
	}
	for _, flag := range []struct {
		name      string
		got, want bool
	}{
		{"CKA_LOCAL", key.Local, true},
		{"CKA_PRIVATE", key.Private, true},
		{"CKA_SENSITIVE", key.Sensitive, true},
		{"CKA_EXTRACTABLE", key.Extractable, true},
		{"CKA_ENCRYPT", key.Encrypt, true},
		{"CKA_DECRYPT", key.Decrypt, false},
		{"CKA_WRAP", key.Wrap, false},
		{"CKA_UNWRAP", key.Unwrap, false},
		{"CKA_SIGN", key.Sign, false},
		{"CKA_VERIFY", key.Verify, false},
		{"CKA_DERIVE", key.Derive, false},
	} {
		if flag.got != flag.want {
			wrong = append(wrong, fmt.Sprintf("%s is %t", flag.name, flag.got))
		}
	}
	return wrong
}
