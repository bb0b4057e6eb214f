package proxy

import (
	"bytes"
	"context"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// plan is what a call is to make.
type plan struct {
	makes   authz.ObjectOperation // which lets the client make the targets
	targets []target
	like    *authz.Object   // see entry
	device  *backend.Device // whose handles are in the call, nil if there are none
}

// onToken reports whether all targets last. One of a pair that lasts, and one that does
// not, come from the session that session objects are made on.
func (p plan) onToken() bool {
	for _, o := range p.targets {
		if !o.onToken {
			return false
		}
	}
	return true
}

// maker is where an object was made.
type maker struct {
	device *backend.Device
	keeper *lease // of session objects
}

// made makes a call that makes objects, where they will last as long as they should.
func (s *session) made(ctx context.Context, a *Application, plan plan, call *cryptoki.Call) (*cryptoki.Answer, maker) {
	if plan.onToken() {
		answer, device := s.token.once(ctx, a.who, plan.device, call)
		return answer, maker{device: device}
	}
	objects := 0
	for _, o := range plan.targets {
		if !o.onToken {
			objects++
		}
	}
	if !a.proxy.own(a.who, objects) {
		return cryptoki.Refuse(cryptoki.CKR_DEVICE_MEMORY), maker{}
	}
	answer, keeper := s.token.keep(ctx, plan.device, call, objects)
	if answer.RV != cryptoki.CKR_OK {
		a.proxy.disown(a.who, objects)
	}
	if keeper == nil {
		return answer, maker{}
	}
	return answer, maker{keeper.device, keeper}
}

// make makes a call that makes objects, records it, and gives the client their handles.
// Objects that turn out to be others than planned are destroyed again.
func (a *Application) make(ctx context.Context, s *session, plan plan, call *cryptoki.Call, deeds ...deed) *cryptoki.Answer {
	answer, by := s.made(ctx, a, plan, call)
	if answer.RV == cryptoki.CKR_OK {
		for i, o := range plan.targets {
			rv := a.admit(ctx, s, by, plan, o, &answer.Numbers[i])
			if rv == cryptoki.CKR_OK {
				continue
			}
			for j := i; j < len(plan.targets); j++ {
				a.unmake(ctx, s, by, plan.targets[j], answer.Numbers[j])
			}
			answer = cryptoki.Refuse(rv)
			break
		}
	}
	return a.done(s.token, call.Mechanism, answer, deeds...)
}

// admit gives the client a handle of an object that was made for it, in the place of
// the device's.
func (a *Application) admit(ctx context.Context, s *session, by maker, plan plan, planned target, handle *uint64) cryptoki.RV {
	s.token.forget(*handle)
	o, rv := s.token.describe(ctx, a.who, by.device, *handle)
	switch {
	case rv != cryptoki.CKR_OK:
		return rv
	case o == nil:
		return cryptoki.CKR_DEVICE_ERROR
	case !a.asPlanned(s, plan, planned, o):
		return cryptoki.CKR_TEMPLATE_INCONSISTENT
	}
	e := entry{token: s.token, object: o}
	if !o.onToken {
		e.owner, e.keeper, e.like = s, by.keeper, plan.like
	}
	*handle = a.enter(e)
	return cryptoki.CKR_OK
}

// asPlanned reports whether the client may have made the object that there is now. A
// device may give it another name than the call did, by itself or by a template of
// the key that it was made with.
func (a *Application) asPlanned(s *session, plan plan, planned target, o *object) bool {
	switch {
	case o.onToken != planned.onToken:
		return false
	case !o.onToken || o.label == planned.Label && bytes.Equal(o.id, planned.ID):
		return true
	default:
		return !a.reserved(o.label, o.id) && a.rights().Decide(plan.makes, o.authz(s.token)).Allowed
	}
}

// unmake destroys an object that the client gets no handle of.
func (a *Application) unmake(ctx context.Context, s *session, by maker, planned target, handle uint64) {
	if !planned.onToken {
		a.proxy.disown(a.who, 1)
		s.token.destroy(ctx, by.keeper, handle)
		return
	}
	s.token.once(ctx, a.who, by.device, &cryptoki.Call{Function: cryptoki.DestroyObject, Numbers: [4]uint64{0, handle}})
	s.token.forget(handle)
}
