package conformance

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func loadDefects() []defect {
	return []defect{
		{"P-01", "fails with more calls than sessions", func(d *device) {
			var b busy
			d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
				if b.n.Load() >= 16 {
					return nil, &hsm.Error{Reason: hsm.Busy, Code: "CKR_SESSION_COUNT", Detail: "open a session"}
				}
				return b.wrap(ctx, s, req)
			}
		}, nil},
		{"P-02", "callers share a key handle", func(d *device) {
			var b busy
			var handle atomic.Value
			d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
				if _, err := s.Token.Key(ctx, req.Key); err != nil {
					return s.Token.Wrap(ctx, req)
				}
				handle.Store(req.Key)
				time.Sleep(time.Millisecond)
				if current := handle.Load().(hsm.KeyID); b.n.Load() > 0 {
					if _, err := s.Token.Key(ctx, current); err == nil {
						req.Key = current
					}
				}
				return b.wrap(ctx, s, req)
			}
		}, nil},
		{"X-01", "generates for nobody", func(d *device) {
			d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
				if errors.Is(ctx.Err(), context.Canceled) {
					ctx = context.WithoutCancel(ctx)
				}
				return s.Token.GenerateKey(ctx, spec)
			}
		}, nil},
		{"X-01", "destroys for nobody", func(d *device) {
			d.destroy = func(ctx context.Context, s *session, id hsm.KeyID) error {
				if errors.Is(ctx.Err(), context.Canceled) {
					_ = s.Token.DestroyKey(context.WithoutCancel(ctx), id)
				}
				return s.Token.DestroyKey(ctx, id)
			}
		}, nil},
		{"X-02", "a cancellation is an internal error", func(d *device) {
			d.health = func(ctx context.Context, s *session) error {
				if errors.Is(ctx.Err(), context.Canceled) {
					return hsm.Errorf(hsm.Internal, "rpc failed")
				}
				return s.Token.Health(ctx)
			}
		}, nil},
		{"X-03", "overlooks deadlines", func(d *device) {
			d.health = func(ctx context.Context, s *session) error {
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					ctx = context.WithoutCancel(ctx)
				}
				return s.Token.Health(ctx)
			}
		}, nil},
		{"X-03", "a passed deadline is an internal error", func(d *device) {
			d.health = func(ctx context.Context, s *session) error {
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					return hsm.Errorf(hsm.Internal, "rpc failed")
				}
				return s.Token.Health(ctx)
			}
		}, nil},
		{"X-04", "sleeps through deadlines", func(d *device) {
			d.checkValue = func(ctx context.Context, s *session, id hsm.KeyID) (hsm.CheckValue, error) {
				if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && time.Until(deadline) < time.Second {
					time.Sleep(time.Hour)
				}
				return s.Token.CheckValue(ctx, id)
			}
		}, nil},
		{"X-05", "loses a session with each cancelled call", func(d *device) {
			var lost atomic.Int32
			d.open = func(*device) error { lost.Store(0); return nil }
			d.checkValue = func(ctx context.Context, s *session, id hsm.KeyID) (hsm.CheckValue, error) {
				if errors.Is(ctx.Err(), context.Canceled) {
					lost.Add(1)
				} else if lost.Load() > 40 {
					return hsm.CheckValue{}, &hsm.Error{Reason: hsm.Busy, Code: "CKR_SESSION_COUNT", Detail: "open a session"}
				}
				return s.Token.CheckValue(ctx, id)
			}
		}, nil},
		{"H-01", "is never well", func(d *device) {
			d.health = func(ctx context.Context, s *session) error {
				if err := s.Token.Health(ctx); err != nil {
					return err
				}
				return hsm.Errorf(hsm.NotPermitted, "no random bytes for this role")
			}
		}, []string{"H-02"}},
		{"H-02", "has no session for its health", func(d *device) {
			var b busy
			d.wrap = b.wrap
			d.health = func(ctx context.Context, s *session) error {
				if err := s.Token.Health(ctx); err != nil || b.n.Load() == 0 {
					return err
				}
				return hsm.Errorf(hsm.Busy, "no session")
			}
		}, nil},
	}
}
