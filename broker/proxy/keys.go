package proxy

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// manageKey answers calls that make keys, or let them out.
func (a *Application) manageKey(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	switch call.Function {
	case cryptoki.GenerateKey:
		return a.generate(ctx, s, call)
	case cryptoki.GenerateKeyPair:
		return a.generatePair(ctx, s, call)
	case cryptoki.WrapKey:
		return a.wrap(ctx, s, call)
	case cryptoki.UnwrapKey:
		return a.derive(ctx, s, authz.ObjectUnwrap, authz.ObjectCreate, call)
	default:
		return a.derive(ctx, s, authz.ObjectDerive, authz.ObjectGenerate, call)
	}
}

func (a *Application) generate(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	o := named(s.token, call.Templates[0], target{private: true})
	if rv := a.mayMake(s, authz.ObjectGenerate, o, call.Mechanism); rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	plan := plan{makes: authz.ObjectGenerate, targets: []target{o}}
	return a.make(ctx, s, plan, call, deed{authz.ObjectGenerate, o.Object})
}

// generatePair makes both keys in the same place: one of a pair that lasts, and one
// that does not, come from a session of the device that ends.
func (a *Application) generatePair(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	public := named(s.token, call.Templates[0], target{})
	private := named(s.token, call.Templates[1], target{private: true})
	for _, o := range []target{private, public} {
		if rv := a.mayMake(s, authz.ObjectGenerate, o, call.Mechanism); rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
	}
	plan := plan{makes: authz.ObjectGenerate, targets: []target{public, private}}
	return a.make(ctx, s, plan, call,
		deed{authz.ObjectGenerate, public.Object}, deed{authz.ObjectGenerate, private.Object})
}

// key resolves a handle for a use of the key. An invisible key has the handle 0 to the
// device.
func (a *Application) key(ctx context.Context, s *session, op authz.ObjectOperation, m *cryptoki.Mechanism, handle *uint64) (*entry, cryptoki.RV) {
	e, rv := a.resolve(ctx, s, *handle)
	if rv != cryptoki.CKR_OK {
		return nil, rv
	}
	*handle = noHandle
	if e == nil {
		return nil, cryptoki.CKR_OK
	}
	if o, asked := e.named(); asked {
		if rv := a.permit(s.token, op, o, m); rv != cryptoki.CKR_OK {
			return nil, rv
		}
	}
	*handle = e.object.handle
	return e, cryptoki.CKR_OK
}

// wrap lets a key out under another: the one has to be allowed to wrap, the other to be
// let out.
func (a *Application) wrap(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	under, rv := a.key(ctx, s, authz.ObjectWrap, call.Mechanism, &call.Numbers[1])
	if rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	e, rv := a.key(ctx, s, authz.ObjectExport, call.Mechanism, &call.Numbers[2])
	if rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	device, ok := where(under, e)
	if !ok {
		return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR)
	}
	answer, _ := s.token.once(ctx, a.who, device, call)
	switch {
	case under == nil || e == nil:
		return ofNothing(answer)
	case call.Room.Null:
		return answer
	}
	return a.done(s.token, call.Mechanism, answer, under.deed(authz.ObjectWrap), e.deed(authz.ObjectExport))
}

// where is the device that objects are on, nil if there are none, unless it was replaced
// between one and the other.
func where(entries ...*entry) (device *backend.Device, ok bool) {
	for _, e := range entries {
		switch {
		case e == nil:
		case device == nil:
			device = e.object.device
		case device != e.object.device:
			return nil, false
		}
	}
	return device, true
}

// derive makes a key out of another, also out of one that comes wrapped.
func (a *Application) derive(ctx context.Context, s *session, use, makes authz.ObjectOperation, call *cryptoki.Call) *cryptoki.Answer {
	base, rv := a.key(ctx, s, use, call.Mechanism, &call.Numbers[1])
	if rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	class, known := ulong(call.Templates[0], cryptoki.CKA_CLASS)
	o := named(s.token, call.Templates[0], target{private: !known || class != cryptoki.CKO_PUBLIC_KEY})
	switch {
	case o.private && !a.loggedIn[s.token]:
		return cryptoki.Refuse(cryptoki.CKR_USER_NOT_LOGGED_IN)
	case o.onToken:
		if rv := a.mayMake(s, makes, o, call.Mechanism); rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
	}
	// Said in so many words, because the key that it is made with may have a template of
	// its own that says otherwise (CKA_UNWRAP_TEMPLATE, CKA_DERIVE_TEMPLATE).
	call.Templates[0] = with(call.Templates[0], cryptoki.CKA_TOKEN, o.onToken)
	plan := plan{makes: makes, targets: []target{o}}
	if base == nil {
		answer, _ := s.made(ctx, a, plan, call)
		return ofNothing(answer)
	}
	plan.device = base.object.device
	deeds := []deed{base.deed(use)}
	if o.onToken {
		deeds = append(deeds, deed{makes, o.Object})
	}
	return a.make(ctx, s, plan, call, deeds...)
}

// ofNothing is the device's answer to a call with a key that there is not.
func ofNothing(answer *cryptoki.Answer) *cryptoki.Answer {
	if answer.RV == cryptoki.CKR_OK {
		clear(answer.Data)
		return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR)
	}
	return answer
}

// random asks the device, each time.
func (a *Application) random(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	if rv := a.permit(s.token, authz.TokenRandom, authz.Object{Token: s.token.name}, nil); rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	answer, _ := s.token.once(ctx, a.who, nil, call)
	return a.done(s.token, nil, answer, deed{authz.TokenRandom, authz.Object{}})
}
