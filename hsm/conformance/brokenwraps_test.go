package conformance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// rewrapped lets a device answer a good wrap with something else. A nil blob
// keeps the honest one.
func rewrapped(with func(s *session, req hsm.WrapRequest, public *rsa.PublicKey) ([]byte, error)) func(d *device) {
	return func(d *device) {
		d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
			blob, err := s.Token.Wrap(ctx, req)
			if err != nil {
				return nil, err
			}
			public, err := x509.ParsePKIXPublicKey(req.PublicKey)
			if err != nil {
				return nil, err
			}
			other, err := with(s, req, public.(*rsa.PublicKey))
			if other == nil && err == nil {
				return blob, nil
			}
			return other, err
		}
	}
}

// seal wraps as asked, whatever it is.
func seal(public *rsa.PublicKey, value []byte, algorithm hsm.WrappingAlgorithm, mgf crypto.Hash) ([]byte, error) {
	switch algorithm {
	case hsm.OAEPSHA256:
		return rsa.EncryptOAEPWithOptions(rand.Reader, public, value, &rsa.OAEPOptions{Hash: crypto.SHA256, MGFHash: mgf})
	case hsm.PKCS1v15:
		return rsa.EncryptPKCS1v15(rand.Reader, public, value) //nolint:staticcheck // a device that wraps this way is to be checked too
	default:
		return rsa.EncryptOAEPWithOptions(rand.Reader, public, value, &rsa.OAEPOptions{Hash: crypto.SHA1, MGFHash: mgf})
	}
}

// zerosFor exports zeros under keys of one length.
func zerosFor(algorithm hsm.WrappingAlgorithm, bits int) func(d *device) {
	return rewrapped(func(_ *session, req hsm.WrapRequest, public *rsa.PublicKey) ([]byte, error) {
		if req.Algorithm != algorithm || public.N.BitLen() != bits {
			return nil, nil
		}
		return seal(public, make([]byte, 32), algorithm, 0)
	})
}

func maskedBy(algorithm hsm.WrappingAlgorithm, mgf crypto.Hash) func(d *device) {
	return rewrapped(func(s *session, req hsm.WrapRequest, public *rsa.PublicKey) ([]byte, error) {
		if req.Algorithm != algorithm {
			return nil, nil
		}
		return seal(public, s.Value(req.Key), algorithm, mgf)
	})
}

// lenient wraps where the honest token refuses, when accept says so.
func lenient(accept func(s *session, req hsm.WrapRequest, err error) []byte) func(d *device) {
	return func(d *device) {
		d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
			blob, err := s.Token.Wrap(ctx, req)
			if err != nil {
				if blob = accept(s, req, err); blob != nil {
					return blob, nil
				}
			}
			return blob, err
		}
	}
}

func wrapDefects() []defect {
	return []defect{
		{"W-01", "exports zeros under RSA-3072", zerosFor(hsm.OAEPSHA256, 3072), nil},
		{"W-01", "declared, and refused under RSA-4096", rewrapped(func(_ *session, req hsm.WrapRequest, public *rsa.PublicKey) ([]byte, error) {
			if req.Algorithm == hsm.OAEPSHA256 && public.N.BitLen() == 4096 {
				return nil, &hsm.Error{Reason: hsm.AlgorithmUnsupported, Code: "CKR_KEY_SIZE_RANGE", Detail: "wrap"}
			}
			return nil, nil
		}), nil},
		{"W-01", "exports half of the key", rewrapped(func(s *session, req hsm.WrapRequest, public *rsa.PublicKey) ([]byte, error) {
			if req.Algorithm != hsm.OAEPSHA256 || public.N.BitLen() == 2048 {
				return nil, nil
			}
			return seal(public, s.Value(req.Key)[:16], req.Algorithm, 0)
		}), nil},
		{"W-02", "exports zeros under RSA-2048", zerosFor(hsm.OAEPSHA1, 2048), nil},
		{"W-03", "exports zeros under RSA-4096", zerosFor(hsm.PKCS1v15, 4096), nil},
		{"W-04", "MGF1 over SHA-1", maskedBy(hsm.OAEPSHA256, crypto.SHA1), nil},
		{"W-05", "MGF1 over SHA-256", maskedBy(hsm.OAEPSHA1, crypto.SHA256), nil},
		{"W-06", "remembers blobs", func(d *device) {
			var mu sync.Mutex
			blobs := map[string][]byte{}
			rewrapped(func(s *session, req hsm.WrapRequest, public *rsa.PublicKey) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				name := fmt.Sprint(req)
				if blobs[name] == nil {
					blobs[name], _ = seal(public, s.Value(req.Key), req.Algorithm, 0)
				}
				return blobs[name], nil
			})(d)
		}, nil},
		{"W-07", "reads PEM", lenient(func(s *session, req hsm.WrapRequest, _ error) []byte {
			block, _ := pem.Decode(req.PublicKey)
			if block == nil {
				return nil
			}
			req.PublicKey = block.Bytes
			blob, _ := s.Token.Wrap(context.Background(), req)
			return blob
		}), nil},
		{"W-08", "wraps for P-256", lenient(func(_ *session, _ hsm.WrapRequest, err error) []byte {
			if strings.Contains(err.Error(), "ecdsa") {
				return make([]byte, 64)
			}
			return nil
		}), nil},
		{"W-09", "wraps under the exponent 3", lenient(func(_ *session, req hsm.WrapRequest, _ error) []byte {
			public, err := x509.ParsePKIXPublicKey(req.PublicKey)
			if key, ok := public.(*rsa.PublicKey); err == nil && ok && key.E == 3 && req.Algorithm.Valid() {
				return bytes.Repeat([]byte{1}, key.Size())
			}
			return nil
		}), nil},
		{"W-10", "falls back to SHA-1", lenient(func(s *session, req hsm.WrapRequest, _ error) []byte {
			if req.Algorithm.Valid() {
				return nil
			}
			req.Algorithm = hsm.OAEPSHA1
			blob, _ := s.Token.Wrap(context.Background(), req)
			return blob
		}), nil},
		{"W-11", "an unknown key is called unsupported", func(d *device) {
			was := known(d)
			d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
				blob, err := s.Token.Wrap(ctx, req)
				if isNotFound(err) && !was(req.Key) {
					err = hsm.Errorf(hsm.AlgorithmUnsupported, "wrap")
				}
				return blob, err
			}
		}, nil},
		{"W-12", "ignores CKA_EXTRACTABLE of foreign keys", lenient(func(s *session, req hsm.WrapRequest, err error) []byte {
			key, missing := s.Token.Key(context.Background(), req.Key)
			if !errors.Is(err, hsm.NotExportable) || missing != nil || key.Label != "planted" {
				return nil
			}
			return exportAnyway(s, req)
		}), nil},
		{"W-13", "keeps the imported keys", func(d *device) {
			var mu sync.Mutex
			rewrapped(func(*session, hsm.WrapRequest, *rsa.PublicKey) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				d.objects++
				return nil, nil
			})(d)
		}, nil},
	}
}
