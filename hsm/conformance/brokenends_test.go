package conformance

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func endDefects() []defect {
	return []defect{
		{"C-01", "is well when it is closed", func(d *device) {
			d.health = func(ctx context.Context, s *session) error {
				if s.wasClosed() && !s.wasKilled() {
					return nil
				}
				return s.Token.Health(ctx)
			}
		}, nil},
		{"C-02", "closes once only", func(d *device) {
			d.close = func(_ context.Context, s *session) error {
				if s.wasClosed() {
					return hsm.Errorf(hsm.Invalid, "closed already")
				}
				return nil
			}
		}, nil},
		{"C-03", "does not close under load", func(d *device) {
			var b busy
			d.wrap = b.wrap
			d.close = func(context.Context, *session) error {
				if b.n.Load() > 0 {
					return &hsm.Error{Reason: hsm.Internal, Code: "CKR_OPERATION_ACTIVE", Detail: "finalise"}
				}
				return nil
			}
		}, nil},
		{"C-03", "closes under running calls", func(d *device) {
			d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
				before := s.wasClosed()
				time.Sleep(time.Millisecond)
				if !before && s.wasClosed() {
					return make([]byte, 256), nil
				}
				return s.Token.Wrap(ctx, req)
			}
		}, nil},
		{"Z-01", "does not let every key go", func(d *device) {
			d.destroy = func(ctx context.Context, s *session, id hsm.KeyID) error {
				if key, err := s.Token.Key(ctx, id); err == nil && strings.Contains(key.Label, "L-05") {
					return &hsm.Error{Reason: hsm.NotPermitted, Code: "CKR_ACTION_PROHIBITED", Detail: "destroy"}
				}
				return s.Token.DestroyKey(ctx, id)
			}
		}, nil},
		{"Z-02", "makes room by itself", func(d *device) {
			d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
				keys, _ := s.Token.Keys(ctx)
				if len(keys) == 64 && keys[0].ID == foreignIDs[0] {
					_ = s.Token.DestroyKey(ctx, keys[0].ID)
				}
				return s.Token.GenerateKey(ctx, spec)
			}
		}, nil},
		{"Z-02", "leaves keys of its own", func(d *device) {
			d.open = func(d *device) error {
				d.base.Add(hsm.Key{ID: hsm.NewKeyID(), Label: "probe", Type: "AES", Bits: 256}, make([]byte, 32))
				return nil
			}
		}, nil},
	}
}

func loginDefects() []defect {
	return []defect{
		{"A-01", "offers an empty PIN", func(d *device) {
			d.openWithPIN = func(pin []byte) error {
				if len(pin) == 0 {
					return &hsm.Error{Reason: hsm.PINIncorrect, Code: "CKR_PIN_LEN_RANGE", Detail: "log in"}
				}
				return nil
			}
		}, nil},
		{"A-02", "a wrong PIN is an internal error", func(d *device) {
			d.openWithPIN = func(pin []byte) error {
				if len(pin) > 0 {
					return hsm.Errorf(hsm.Internal, "login failed")
				}
				return nil
			}
		}, nil},
		{"A-02", "takes any PIN", func(d *device) {
			d.openWithPIN = func([]byte) error { return nil }
			d.anyPIN = true
		}, nil},
		{"A-03", "tries wrong PINs until it is locked", func(d *device) {
			locked := false
			d.openWithPIN = func(pin []byte) error { locked = len(pin) > 0; return nil }
			d.open = func(*device) error {
				if locked {
					return &hsm.Error{Reason: hsm.PINLocked, Code: "CKR_PIN_LOCKED", Detail: "log in"}
				}
				return nil
			}
		}, []string{"E-06"}},
	}
}

// notFoundAs gives the refusal of an unknown key another shape.
func notFoundAs(err error) func(d *device) {
	return func(d *device) {
		d.key = func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
			key, honest := s.Token.Key(ctx, id)
			if isNotFound(honest) {
				return nil, err
			}
			return key, honest
		}
	}
}

func errorDefects() []defect {
	return []defect{
		{"E-01", "errors without a type", notFoundAs(fmt.Errorf("no key: %w", hsm.NotFound)), nil},
		{"E-02", "a reason of its own", func(d *device) {
			d.health = func(ctx context.Context, s *session) error {
				err := s.Token.Health(ctx)
				if s.wasClosed() && !s.wasKilled() {
					return hsm.Errorf("TIRED", "the token is closed")
				}
				return err
			}
		}, nil},
		{"E-03", "errors of two lines", notFoundAs(hsm.Errorf(hsm.NotFound, "no\nkey")), nil},
		{"E-03", "errors without words", notFoundAs(hsm.Errorf(hsm.NotFound, "")), nil},
		{"E-03", "endless errors", notFoundAs(hsm.Errorf(hsm.NotFound, "%s", strings.Repeat("no key ", 1000))), nil},
		{"E-04", "errors with the PIN", notFoundAs(hsm.Errorf(hsm.NotFound, "no key after login with %s", devicePIN)), nil},
		{"E-05", "values among the attributes", func(d *device) {
			d.see = func(k *hsm.Key) {
				k.Vendor = map[string]string{"CKA_VALUE": hex.EncodeToString(d.base.Value(k.ID))}
			}
		}, nil},
		{"E-06", "gets the PIN on its command line", func(d *device) { d.exposed = []string{"arguments"} }, nil},
	}
}
