package conformance

import (
	"context"
	"errors"
	"slices"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func sealDefects() []defect {
	return []defect{
		{"S-01", "answers with what it read before", resealed(func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			before, err := s.Token.Key(ctx, id)
			if err != nil {
				return nil, err
			}
			_, err = s.Token.SealKey(ctx, id)
			return before, err
		}), nil},
		{"S-01", "answers about another key", resealed(func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			before, err := s.Token.Key(ctx, id)
			if err != nil {
				return nil, err
			}
			key, err := s.Token.SealKey(ctx, id)
			if err == nil && before.Extractable {
				key.ID = foreignIDs[0]
			}
			return key, err
		}), nil},
		{"S-02", "PKCS#1 v1.5 does not know of seals", lenient(func(s *session, req hsm.WrapRequest, err error) []byte {
			if !errors.Is(err, hsm.NotExportable) || req.Algorithm != hsm.PKCS1v15 {
				return nil
			}
			return exportAnyway(s, req)
		}), nil},
		{"S-02", "calls a sealed key an unsupported algorithm", wrapAnswered(func(_ *session, req hsm.WrapRequest, blob []byte, err error) ([]byte, error) {
			if errors.Is(err, hsm.NotExportable) && req.Algorithm == hsm.OAEPSHA1 {
				err = hsm.Errorf(hsm.AlgorithmUnsupported, "wrap")
			}
			return blob, err
		}), nil},
		{"S-02", "refuses with the blob in hand", wrapAnswered(func(s *session, req hsm.WrapRequest, blob []byte, err error) ([]byte, error) {
			if errors.Is(err, hsm.NotExportable) && req.Algorithm == hsm.OAEPSHA1 {
				blob = exportAnyway(s, req)
			}
			return blob, err
		}), nil},
		{"S-03", "a generation opens the seal", func(d *device) {
			d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
				unseal(s, spec.ID)
				return s.Token.GenerateKey(ctx, spec)
			}
		}, nil},
		{"S-03", "the seal ends with the session", func(d *device) {
			d.close = func(_ context.Context, s *session) error {
				for _, id := range s.madeHere() {
					unseal(s, id)
				}
				return nil
			}
		}, nil},
		{"S-04", "refuses to seal what is sealed", resealed(func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			if key, err := s.Token.Key(ctx, id); err == nil && !key.Extractable {
				return nil, &hsm.Error{Reason: hsm.NotPermitted, Code: "CKR_ATTRIBUTE_READ_ONLY", Detail: "seal"}
			}
			return s.Token.SealKey(ctx, id)
		}), nil},
		{"S-05", "seals what is not there", resealed(func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			key, err := s.Token.SealKey(ctx, id)
			if isNotFound(err) {
				return &hsm.Key{ID: id}, nil
			}
			return key, err
		}), nil},
		{"S-06", "notes the seal in the label", resealed(func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			key, err := s.Token.SealKey(ctx, id)
			if err == nil {
				key.Label += " (sealed)"
				s.Add(*key, s.Value(id))
			}
			return key, err
		}), nil},
		{"S-06", "seals zeros", resealed(func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			key, err := s.Token.SealKey(ctx, id)
			if err == nil {
				s.Replace(id, make([]byte, 32))
			}
			return key, err
		}), nil},
		{"S-07", "seals by label", resealed(func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			key, err := s.Token.SealKey(ctx, id)
			if err != nil {
				return nil, err
			}
			all, err := s.Token.Keys(ctx)
			for _, other := range all {
				if other.Label == key.Label {
					_, _ = s.Token.SealKey(ctx, other.ID)
				}
			}
			return key, err
		}), nil},
		{"X-01", "seals for nobody", resealed(func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			if errors.Is(ctx.Err(), context.Canceled) {
				_, _ = s.Token.SealKey(context.WithoutCancel(ctx), id)
			}
			return s.Token.SealKey(ctx, id)
		}), nil},
	}
}

func resealed(seal func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error)) func(d *device) {
	return func(d *device) { d.sealKey = seal }
}

// wrapAnswered lets a device change what it answers to a wrap.
func wrapAnswered(change func(s *session, req hsm.WrapRequest, blob []byte, err error) ([]byte, error)) func(d *device) {
	return func(d *device) {
		d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
			blob, err := s.Token.Wrap(ctx, req)
			return change(s, req, blob, err)
		}
	}
}

// exportAnyway wraps a key that may not leave.
func exportAnyway(s *session, req hsm.WrapRequest) []byte {
	receiver, _ := sharedRSA.get(2048)
	blob, _ := seal(&receiver.private.PublicKey, s.Value(req.Key), req.Algorithm, 0)
	return blob
}

// unseal makes a key of the suite extractable again, as no device may.
func unseal(s *session, id hsm.KeyID) {
	keys, _ := s.d.base.Keys(context.Background())
	i := slices.IndexFunc(keys, func(k hsm.Key) bool { return k.ID == id && k.Label != "planted" })
	if i >= 0 && !keys[i].Extractable {
		keys[i].Extractable = true
		s.Add(keys[i], s.Value(id))
	}
}
